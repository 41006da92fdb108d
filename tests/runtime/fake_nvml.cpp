// Stands in for the driver's management library: one device, at bus id 0000:1a:00.0.
#include <cstring>

extern "C" {
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::strncpy(text, "580.65.06", size);
  return 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** device) {
  *device = nullptr;
  return std::strcmp(bus_id, "0000:1a:00.0") == 0 ? 0 : 6;  // 6: NVML_ERROR_NOT_FOUND
}
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned* milliwatts) {
  *milliwatts = 700000;
  return 0;
}
int nvmlDeviceGetMaxClockInfo(void*, int clock, unsigned* megahertz) {
  *megahertz = clock == 1 ? 1980 : 2619;  // 1: the SM clock
  return 0;
}
}
