// The argument of the kernels in cuda_solver.cu, and the sizes of their blocks. NVRTC takes this header too.
#pragma once

namespace pdeinfer {

constexpr int kCoefficients = 4;  // the Courant numbers along x (the width) and y, the diffusion numbers along x and y

// A Courant or diffusion number at every point. The pointers are to memory of the GPU.
struct Coefficient {
  // kSame: the previous one; kConvolution: relu(depthwise 3x3 of the input + bias); kSigned: the same without the relu
  enum Kind { kAbsent, kConstant, kMap, kSame, kConvolution, kSigned } kind;
  const float* values;  // kConstant: one number; kMap: (N, H, W, C); kConvolution, kSigned: (C, 1, 3, 3)
  const float* bias;    // kConvolution, kSigned: (C)
};

// Computes relu(scale * H[num_steps] + shift). The tensors are (N, H, W, C), except the output, which is (N, C, H, W).
struct Layer {
  int images, height, width, channels, num_steps;
  float source_factor;  // 2 dt, or 0
  const float* input;   // h
  const float* start;   // H[-1] = H[0]; if null, the input
  Coefficient coefficients[kCoefficients];
  Coefficient source;  // f; if absent, the input
  const float* scale;  // (C)
  const float* shift;  // (C)
  float* output;

  // For maps in shared memory: floats from one row to the next, and from one channel to the next.
  int pitch, stride;

  // For maps in global memory: H[k], H[k-1], and H[k+1], which is null in the last step. H[k+1] may replace H[k-1].
  const float* level;
  const float* previous;
  float* next;
};
static_assert(sizeof(Layer) == 216, "the compilers of the host and of the GPU must lay it out alike");

constexpr int kRows = 4;              // rows of a thread
constexpr int kMostThreads = 1024;    // of a block
constexpr int kMostPlanes = 8;        // channels of a block: their floats fill a sector of memory
constexpr int kSharedFloats = 12288;  // of a block: 48 KiB, which every GPU grants. 3 maps of kRows * kMostThreads points

}  // namespace pdeinfer
