// The interface of solver.cc, which is compiled once for each instruction set: it solves one PDE layer for a band of
// rows and a block of channels.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace pdeinfer {

// The Courant numbers along x (the width) and y, then the diffusion numbers along x and y.
constexpr int kCoefficients = 4;

// A Courant or diffusion number at every point.
struct Coefficient {
  // kSame: the previous one; kConvolution: relu(depthwise 3x3 of the input + bias); kSigned: the same without the relu
  enum Kind { kAbsent, kConstant, kMap, kSame, kConvolution, kSigned } kind;
  float constant;    // kConstant
  const float* map;  // kMap: (N, H, W, C)
};

constexpr int kConvolutions = kCoefficients + 1;  // those of the coefficients, and the source's

// Weights in ONNX's layout.
struct Weights {
  const float* kernels[kConvolutions];  // (C, 1, 3, 3) each, or null if it is not a convolution
  const float* biases[kConvolutions];   // (C) each, or null
  const float* scale;                   // (C)
  const float* shift;                   // (C)
};

// Computes relu(scale * H[num_steps] + shift). The tensors are (N, H, W, C), except the output, which is (N, C, H, W).
struct Layer {
  int64_t images, height, width, channels, num_steps;
  float source_factor;  // 2 dt, or 0
  const float* input;   // h
  const float* start;   // H[-1] = H[0]; if null, the input
  Coefficient coefficients[kCoefficients];
  Coefficient source;   // f; if absent, the input
  const void* weights;  // packed
  float* output;
};

// The alignment of packed weights and scratch memory, in bytes.
constexpr size_t kAlignment = 64;

struct Solver {
  const char* name;
  int64_t lanes;  // channels in a block
  size_t (*weights_size)(int64_t channels);
  void (*pack)(const Weights& weights, int64_t channels, void* packed);
  int64_t (*images_together)(int64_t channels);  // more than one if they fit into a block
  int64_t (*bands)(const Layer& layer);          // of rows, each of which can be solved independently
  size_t (*scratch_size)(const Layer& layer);
  // Solves images_together(channels) images, or those that remain, starting at `image`.
  void (*solve)(const Layer& layer, int64_t image, int64_t block, int64_t band, void* scratch);
};

extern const Solver kBaseline;
#ifdef __x86_64__
extern const Solver kAvx2;
extern const Solver kAvx512;
#endif

}  // namespace pdeinfer
