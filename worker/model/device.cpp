#include "model/device.hpp"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <dlfcn.h>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

// LibTorch's CUDA part is a library of its own that announces itself when it is loaded. The program is
// linked with the CPU part alone, so that one build runs with either wheel. Why it is not there, or "".
const std::string& cuda_missing() {
  static const std::string why = [] {
    if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      const char* said = dlerror();
      return "LibTorch has no CUDA part here (" + std::string(said == nullptr ? "" : said) + ")";
    }
    return std::string(at::hasCUDA() ? "" : "no CUDA device is there");
  }();
  return why;
}

}  // namespace

int cuda_devices(const std::string& name) {
  if (cuda_missing().empty()) return at::detail::getCUDAHooks().deviceCount();
  if (name == "auto") return 0;
  throw Error(ErrorCode::device_missing,
              "open " + name + ": " + cuda_missing() + "; use cpu, or see `yumoe doctor`");
}

c10::Device open_device(const std::string& name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  if (name == "auto") return c10::Device(cuda_missing().empty() ? c10::kCUDA : c10::kCPU);
  if (name != "cuda" && !name.starts_with("cuda:")) {
    throw Error(ErrorCode::config_invalid,
                "device = " + name + " must be auto, cpu, cuda or cuda:N");
  }
  const int count = cuda_devices(name);
  int index = 0;
  if (name != "cuda") {
    const std::string text = name.substr(5);
    if (text.empty() || text.size() > 3 ||
        text.find_first_not_of("0123456789") != std::string::npos) {
      throw Error(ErrorCode::config_invalid,
                  "device = " + name + " must be auto, cpu, cuda or cuda:N");
    }
    index = std::stoi(text);
  }
  if (index >= count) {
    throw Error(ErrorCode::device_missing,
                "open " + name + ": this machine has " + std::to_string(count) + " CUDA device(s)");
  }
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

}  // namespace yumoe
