#include "plan/timeline.h"

#include "plan/ensure.h"

namespace rehearse {

const char* stream_name(Stream stream) {
  switch (stream) {
    case Stream::Compute:
      return "compute";
    case Stream::Tensor:
      return "tensor";
    case Stream::Expert:
      return "expert";
    case Stream::Data:
      return "data";
    case Stream::Parameter:
      return "parameter";
    case Stream::PipelineForward:
      return "pipeline_forward";
    case Stream::PipelineBackward:
      return "pipeline_backward";
    case Stream::Host:
      return "host";
    case Stream::ToHost:
      return "to_host";
    case Stream::FromHost:
      return "from_host";
  }
  ensure(false, "a stream has one of the named values");
  return "";
}

}  // namespace rehearse
