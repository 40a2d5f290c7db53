"""Converts a network to ONNX with every PDE layer as a call of one ONNX function.

A plain conversion of a PDE layer is slow: tracing unrolls its K steps, and each step's periodic shifts become dozens of
slices and concatenations. So the PDE layers are not converted at all. The Keras network is cut around them: `traced`
traces a function whose arguments are what the PDE layers return, and whose results include what they take, and tf2onnx
converts this rest of the network. `graph` then adds, for each PDE layer, a call of the ONNX function
`pdeinfer.GlobalLayer` that joins the two loose ends.

`function` writes the body of that function, once per network: the unrolled scheme of `pdeinfer.pde`, with the layer's
final batch normalisation and relu, in standard ONNX operators, in the formulation that ONNX Runtime runs fastest.
`body` provides the building blocks. `operands` prepares what each call passes. Weights are folded first: batch
normalisations and the time step dt go into the kernels of the convolutions that produce the Courant and diffusion
numbers. What cannot be folded, such as a field that a network of its own computes, is traced and passed as a map.

Any ONNX runtime can run the file, as it inlines the function. Where pdeinfer's operator library is registered, ONNX
Runtime finds an operator of the same name, domain and operands and runs its fused kernel instead of the body.
`graph.without_functions` inlines the calls for tools that cannot read functions. `fields` names the inputs and outputs
of the second file, `fields.onnx`, the network cut at its PDE layers for `pdeinfer inspect`.
"""
