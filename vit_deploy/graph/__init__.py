"""One file per ONNX graph pass, and the linter that has the last word."""
