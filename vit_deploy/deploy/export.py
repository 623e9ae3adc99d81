"""From a model to a bundle: export, prove, accept. A failing artefact never enters the bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_deploy import registry
from vit_deploy.bundle import BundleEditor, edit_bundle
from vit_deploy.bundle.manifest import ProofRecord
from vit_deploy.deploy.job import Job, Outcome
from vit_deploy.errors import UsageFailed
from vit_deploy.model.contract import contracted
from vit_deploy.proof import require_passed
from vit_deploy.protocols import Silent, option_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vit_deploy.model.config import OutputName
    from vit_deploy.parity import ParityCheck
    from vit_deploy.parity.requirements import Requirement
    from vit_deploy.proof import Proof
    from vit_deploy.protocols import Exporter, Progress
    from vit_deploy.spec import BatchRange, Contract, IOSpec, Precision, SizeRange
    from vit_deploy.weights.imported import Model


def export_model(
    model: Model,
    output: Path,
    formats: Sequence[str],
    *,
    precision: Precision = "fp32",
    outputs: Sequence[OutputName] = (),
    batch: BatchRange | None = None,
    contract: Contract = "pixel_values",
    picture_sizes: SizeRange | None = None,
    image_sizes: SizeRange | None = None,
    options: Mapping[str, Any] | None = None,
    images: Sequence[Path] = (),
    verify: bool = True,
    proof: Proof | None = None,
    requirements: Sequence[Requirement] = (),
    progress: Progress | None = None,
) -> list[Outcome]:
    """Export a model to each format, prove each artefact, and keep those that hold in a bundle.

    A format that is built from another (TensorRT from ONNX) brings that one along, unless the
    bundle has it already.

    Args:
        model: the model, as :func:`vit_deploy.load_model` gives it.
        output: the bundle's directory, new or holding the same model.
        formats: names or aliases of formats.
        precision: the declared precision of the artefacts.
        outputs: the outputs they have; the config's default when empty.
        batch: the batch sizes they are made for.
        contract: what they take; see :mod:`vit_deploy.model.contract`.
        picture_sizes: the sizes of pictures they are made for, where the contract is ``image``.
        image_sizes: the sizes that the network itself takes, as :func:`vit_deploy.model.sizes.size_range`
            gives them; the model's own alone when ``None``.
        options: values of the exporters' options by field name.
        images: pictures to verify with, beside the synthetic ones.
        verify: whether to verify at all; artefacts enter as ``unverified`` otherwise.
        proof: the proof of import that the bundle shall keep.
        requirements: what else must be so of each format asked for, as
            :func:`vit_deploy.parity.requirements.parse_requirements` reads it; an artefact that was built
            otherwise is not accepted.
        progress: told how far it is.

    Returns:
        One outcome for each artefact, in the order they were made. Failures are values here:
        the caller decides what they mean.

    Raises:
        UsageFailed: for a name or an option that no chosen format has.
        ParityFailed: for a proof that failed.
        OutputFailed: when the bundle cannot be written.
    """
    if proof is not None:
        require_passed(proof)
    plain = model.config.io_spec(tuple(outputs), batch, sizes=image_sizes)
    spec = contracted(plain, contract, model.config, model.preprocessing, picture_sizes)
    asked = [registry.exporter(name) for name in dict.fromkeys(formats)]
    exporters = _in_order(asked, spec, precision, output, options or {})
    chosen = {exporter.format: exporter.Options(**values) for exporter, values in _options(exporters, options)}
    for exporter in asked:
        offered = registry.precisions(exporter)
        if precision not in offered:
            raise UsageFailed(
                f"{exporter.format} artefacts cannot be made in {precision}",
                expected=f"--dtype {' or '.join(sorted(offered))}",
                next_command="vit-deploy formats",
            )
    with edit_bundle(output, model) as editor:
        editor.proof = ProofRecord(**proof.to_dict()) if proof else None
        required = dict.fromkeys((exporter.format for exporter in asked), tuple(requirements))
        check = _check(editor, images, precision, verify)
        job = Job(editor, spec, precision, chosen, progress or Silent(), check, required)
        return [job.run(exporter) for exporter in exporters]


def _check(
    editor: BundleEditor, images: Sequence[Path], precision: Precision, verify: bool
) -> ParityCheck | None:
    if not verify:
        return None
    from vit_deploy.parity import ParityCheck

    return ParityCheck(editor.model, images=images, precisions=(precision,))


def _in_order(
    exporters: list[Exporter], spec: IOSpec, precision: Precision, output: Path, options: Mapping[str, Any]
) -> list[Exporter]:
    """What others are built from comes first; it is added where it is missing, or has options given."""
    ordered: list[Exporter] = []
    for exporter in exporters:
        asked = {entry.format for entry in exporters}
        if not exporter.needs or exporter.needs in asked:
            continue
        needed = registry.exporter(exporter.needs)
        if set(option_fields(needed.Options)) & set(options) or not _has(
            output, exporter.needs, spec, precision
        ):
            ordered.append(needed)
    ordered.extend(exporters)
    unique = {exporter.format: exporter for exporter in ordered}
    return sorted(unique.values(), key=lambda exporter: bool(exporter.needs))


def _has(output: Path, format: str, spec: IOSpec, precision: Precision) -> bool:
    """Whether the bundle holds an artefact of ``format`` and ``precision`` with these inputs and outputs."""
    from vit_deploy.bundle import Bundle
    from vit_deploy.bundle.manifest import MANIFEST_NAME

    if not (output / MANIFEST_NAME).exists():
        return False
    return any(
        record.format == format
        and record.precision == precision
        and record.io_spec().inputs == spec.inputs
        and record.io_spec().outputs == spec.outputs
        for record in Bundle.open(output).records.values()
    )


def _options(
    exporters: Sequence[Exporter], options: Mapping[str, Any] | None
) -> list[tuple[Exporter, dict[str, Any]]]:
    """Each exporter with the options that are its own.

    Raises:
        UsageFailed: for an option that none of them has.
    """
    given = dict(options or {})
    known = {name for exporter in exporters for name in option_fields(exporter.Options)}
    for name in given:
        if name not in known:
            raise UsageFailed(
                f"none of {', '.join(exporter.format for exporter in exporters)} takes {name!r}",
                expected=f"one of {', '.join(sorted(known)) or 'no options'}",
                next_command="vit-deploy export --help",
            )
    return [
        (exporter, {name: given[name] for name in option_fields(exporter.Options) if name in given})
        for exporter in exporters
    ]
