"""Test graphs of MXNet as ONNX graphs: making them needs `onnx`, reading them nothing."""
