#pragma once
#include <vector>

#include "plan/schedule.h"

namespace rehearse {

/// The actions of one stage of the schedules whose backward is split into the gradient of the
/// input (B), which the stage before waits for, and that of the weights (W), which nobody does.
///
/// p stages, m micro-batches; bubbles with free transfers, in-flight as peak_in_flight counts:
///   ZB-H1     p − s forwards before the first B, W at most s micro-batches behind B:
///             in flight p on every stage, bubble (p − 1)(F + B − W)
///   ZB-H2     2(p − s) − 1 forwards, W at most 2s behind: in flight 2p − 1,
///             bubble (p − 1)(F + B − 2W) of a stage that need not wait for the others' ends
///   ZB-V      chunks on a way down and back: in flight 2p half-size chunks, the memory of 1F1B;
///             no bubble where F = B = W
///   DualPipe  both ends at once: in flight p + 1 on every stage for twice the parameters,
///             bubble (p/2 − 1)(F&B + B + W − 3W) with F&B the time of a joined pair, if F = B
/// Sources: Qi et al. 2023 (arXiv 2401.10241) §2 and §3 for ZB-H1 and H2; Qi et al. 2024
/// (arXiv 2405.15362) for ZB-V; DeepSeek-V3 report (arXiv 2412.19437) §3.2.1 and the README of
/// deepseek-ai/DualPipe.
std::vector<Action> zb_h1_actions(int stage, int stages, int micro_batches);
std::vector<Action> zb_h2_actions(int stage, int stages, int micro_batches);
std::vector<Action> zb_v_actions(int stage, int stages, int micro_batches);
std::vector<Action> dual_pipe_actions(int stage, int stages, int micro_batches);

}  // namespace rehearse
