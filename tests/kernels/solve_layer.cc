// Solves one PDE layer without ONNX Runtime, for machines that have none: reads it from standard input, writes the
// result to standard output. tests/kernels/test_aarch64.py writes the input.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "scratch.h"
#include "solver.h"

using namespace pdeinfer;

template <typename T>
static T read_value() {
  T value;
  if (fread(&value, sizeof value, 1, stdin) != 1) exit(1);
  return value;
}

static float* read_floats(int64_t count) {
  float* const values = static_cast<float*>(malloc(count * sizeof(float)));
  if (fread(values, sizeof(float), count, stdin) != static_cast<size_t>(count)) exit(1);
  return values;
}

int main() {
  Layer layer{};
  Weights weights{};
  layer.images = read_value<int64_t>();
  layer.height = read_value<int64_t>();
  layer.width = read_value<int64_t>();
  const int64_t channels = layer.channels = read_value<int64_t>();
  layer.num_steps = read_value<int64_t>();
  const bool has_start = read_value<int64_t>();
  layer.source_factor = read_value<float>();
  const int64_t size = layer.images * layer.height * layer.width * channels;
  layer.input = read_floats(size);
  if (has_start) layer.start = read_floats(size);
  for (int i = 0; i < kConvolutions; ++i) {
    Coefficient& coefficient = i < kCoefficients ? layer.coefficients[i] : layer.source;
    coefficient.kind = static_cast<Coefficient::Kind>(read_value<int64_t>());
    if (coefficient.kind == Coefficient::kConstant) coefficient.constant = read_value<float>();
    if (coefficient.kind == Coefficient::kMap) coefficient.map = read_floats(size);
    if (coefficient.kind >= Coefficient::kConvolution) {
      weights.kernels[i] = read_floats(channels * 9);
      weights.biases[i] = read_floats(channels);
    }
  }
  weights.scale = read_floats(channels);
  weights.shift = read_floats(channels);

  const Solver& solver = kBaseline;
  void* const packed = allocate(solver.weights_size(channels));
  solver.pack(weights, channels, packed);
  layer.weights = packed;
  layer.output = static_cast<float*>(malloc(size * sizeof(float)));
  void* const scratch = allocate(solver.scratch_size(layer));
  for (int64_t image = 0; image < layer.images; image += solver.images_together(channels)) {
    for (int64_t block = 0; block * solver.lanes < channels; ++block) {
      for (int64_t band = 0; band < solver.bands(layer); ++band) solver.solve(layer, image, block, band, scratch);
    }
  }
  return fwrite(layer.output, sizeof(float), size, stdout) == static_cast<size_t>(size) ? 0 : 1;
}
