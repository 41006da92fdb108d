#pragma once
#include "kernels/cost_model.h"

namespace rehearse {

/// Constants of `gemm_time_s`, fitted to measured cuBLAS times of one GPU generation.
struct GemmConstants {
  double start_s = 0;     ///< t0: a kernel's ramp-up and end
  double efficiency = 1;  ///< eps: of one SM's tensor cores on endless tiles
  double bandwidth = 1;   ///< beta: share of the data-sheet memory bandwidth
  double tile_s = 0;      ///< pi: prologue and epilogue of each wave
  double intensity = 0;   ///< theta: tile intensity at which half the efficiency is reached
  double sharpness = 2;   ///< p of the smooth maximum of computing and moving
  double split_s = 0;     ///< e1: reducing the parts of a product split along k
  /// Of what was timed beside the product, an element of the left operand: kernels that scale and
  /// convert it to fp8.
  double scaling_s = 0;
  double relative_error = 0;  ///< mean absolute error of the fit
};

/// Constants of `attention_time_s`.
struct AttentionConstants {
  double efficiency_128 = 1, efficiency_64 = 1;  ///< of the tensor cores, by head size
  double tail_tiles = 0;  ///< of a row of key tiles: what unequal blocks leave idle at the end
  double wave_s = 0;      ///< overhead of each wave of query tiles
  double bandwidth = 1;   ///< share of the data-sheet memory bandwidth
  double relative_error = 0;
};

/// A GPU generation as the roofline knows it.
struct GpuGeneration {
  const char* name = "";
  bool fitted = false;  ///< false: shares of the data sheet that hold for all of them
  GemmConstants gemm;   ///< 16 bits
  GemmConstants gemm_fp8;
  AttentionConstants attention;
  /// Clocks under the power limit of a long step, relative to the short bursts fitted.
  double sustained = 1;
};

/// Shares of the data sheet, for what no generation was fitted to.
const GpuGeneration& data_sheet_generation();

/// The generation of a GPU by its compute capability; an unfitted one where none was measured.
const GpuGeneration& gpu_generation(const DeviceRates& rates);

}  // namespace rehearse
