#pragma once
// Opens the device a worker computes on.

#include <c10/core/Device.h>

#include <string>

namespace yumoe {

// "cpu", "cuda" or "cuda:N". Throws Error{device_missing} saying what is there instead.
c10::Device open_device(const std::string& name);

// How many CUDA devices "auto" or "cuda" can choose among; none: 0 for "auto", Error{device_missing} for "cuda".
int cuda_devices(const std::string& name);

}  // namespace yumoe
