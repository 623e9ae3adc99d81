"""What a benchmark found, as a page, as Markdown and as CSV.

All are made from :class:`vit_deploy.bench.document.BenchReport` alone.
"""
