// One PDE layer, solved for a band of rows and a block of channels: what solver.cc compiles to for each instruction
// set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace pdeinfer {

// The Courant numbers along x (the width) and y, the diffusion numbers along x and y.
constexpr int kCoefficients = 4;

// A Courant or diffusion number at every point.
struct Coefficient {
  enum Kind { kAbsent, kConstant, kMap, kConvolution } kind;  // kConvolution: relu(a depthwise 3x3 of the input + bias)
  float constant;                                             // kConstant
  const float* map;                                           // kMap: (N, H, W, C)
};

// Weights as ONNX has them.
struct Weights {
  const float* kernels[kCoefficients];  // (C, 1, 3, 3) each, or null where the coefficient is no convolution
  const float* biases[kCoefficients];   // (C) each, or null
  const float* scale;                   // (C)
  const float* shift;                   // (C)
};

// relu(scale * H[num_steps] + shift). Tensors are (N, H, W, C), but for the output: (N, C, H, W).
struct Layer {
  int64_t images, height, width, channels, num_steps;
  float source;        // 2 dt, or 0
  const float* input;  // f, and H[-1] = H[0]
  const float* start;  // H[-1] = H[0] in place of the input, or null
  Coefficient coefficients[kCoefficients];
  const void* weights;  // packed
  float* output;
};

// All memory is aligned to kAlignment bytes.
constexpr size_t kAlignment = 64;

struct Solver {
  const char* name;
  int64_t lanes;  // channels of a block
  size_t (*weights_size)(int64_t channels);
  void (*pack)(const Weights& weights, int64_t channels, void* packed);
  int64_t (*images_together)(int64_t channels);  // more than one where a block has room for them
  int64_t (*bands)(const Layer& layer);          // bands of rows that an image is divided into, each solved by itself
  size_t (*scratch_size)(const Layer& layer);
  // Solves as many images as are solved together, or as there are, from that image on.
  void (*solve)(const Layer& layer, int64_t image, int64_t block, int64_t band, void* scratch);
};

extern const Solver kBaseline;
#ifdef __x86_64__
extern const Solver kAvx2;
extern const Solver kAvx512;
#endif

}  // namespace pdeinfer
