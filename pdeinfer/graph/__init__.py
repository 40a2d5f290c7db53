"""Checks the graph of a package's ONNX file before ONNX Runtime sees it.

`wire` reads the file, `values` and `operators` follow the shapes through it, and `rules` bounds what it costs. The onnx
package is not needed.
"""
