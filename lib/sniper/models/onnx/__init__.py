"""Test graphs of MXNet as ONNX graphs; needs the package `onnx`, and no MXNet."""
