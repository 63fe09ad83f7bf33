# Every third-party library, found once. Versions and quirks: docs/dependencies.md.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(CapnProto REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(GTest CONFIG REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(tomlplusplus CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(rapidcheck CONFIG REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(ZMQ REQUIRED IMPORTED_TARGET libzmq)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)

# MPI: the system's, started by whatever mpirun is on the path; or, for islands that re-form without a
# lost rank, Open MPI 5 of `launch/setup ulfm`. Only mpi.cpp and links differ.
if(YUMOE_WITH_MPI)
  set(YUMOE_MPIRUN mpirun)
  if(YUMOE_WITH_ULFM)
    if(NOT YUMOE_ULFM_ENV)
      file(SHA256 ${PROJECT_SOURCE_DIR}/launch/ulfm-requirements.txt digest)
      string(SUBSTRING ${digest} 0 12 digest)
      set(YUMOE_ULFM_ENV "$ENV{HOME}/.cache/yumoe/ulfm-${digest}")
    endif()
    if(NOT EXISTS "${YUMOE_ULFM_ENV}/bin/mpicc")
      message(FATAL_ERROR "no Open MPI 5 under YUMOE_ULFM_ENV='${YUMOE_ULFM_ENV}'. Run "
                          "`launch/setup ulfm`, or configure with -DYUMOE_WITH_ULFM=OFF.")
    endif()
    set(MPI_C_COMPILER ${YUMOE_ULFM_ENV}/bin/mpicc)
    set(YUMOE_MPIRUN ${YUMOE_ULFM_ENV}/bin/mpirun)
  endif()
  find_package(MPI REQUIRED COMPONENTS C)
endif()

# CUDA and NCCL from their wheels: headers, nvcc and libraries to link with, none of torch.
if(YUMOE_WITH_CUDA)
  if(NOT YUMOE_CUDA_ENV)  # where `launch/setup cuda` puts it
    file(SHA256 ${PROJECT_SOURCE_DIR}/launch/cuda-requirements.txt digest)
    string(SUBSTRING ${digest} 0 12 digest)
    set(YUMOE_CUDA_ENV "$ENV{HOME}/.cache/yumoe/cuda-${digest}")
  endif()
  file(GLOB YUMOE_NVIDIA_DIR "${YUMOE_CUDA_ENV}/lib/python3.*/site-packages/nvidia")
  if(NOT YUMOE_NVIDIA_DIR)
    message(FATAL_ERROR "no CUDA wheels under YUMOE_CUDA_ENV='${YUMOE_CUDA_ENV}'. Run "
                        "`launch/setup cuda`, or configure with -DYUMOE_WITH_CUDA=OFF.")
  endif()
  add_library(yumoe_nccl INTERFACE)  # the wheels have no names to link by, only versions
  target_include_directories(yumoe_nccl SYSTEM INTERFACE
    ${YUMOE_NVIDIA_DIR}/nccl/include ${YUMOE_NVIDIA_DIR}/cu13/include)
  target_link_libraries(yumoe_nccl INTERFACE
    "-L${YUMOE_NVIDIA_DIR}/nccl/lib" "-Wl,-rpath,${YUMOE_NVIDIA_DIR}/nccl/lib" -l:libnccl.so.2
    "-L${YUMOE_NVIDIA_DIR}/cu13/lib" "-Wl,-rpath,${YUMOE_NVIDIA_DIR}/cu13/lib" -l:libcudart.so.13)
  set(YUMOE_NVCC ${YUMOE_NVIDIA_DIR}/cu13/bin/nvcc)
endif()

# LibTorch: what a C++ program needs, never libtorch_python. Its include folder also carries fmt,
# protobuf and pybind11, so it is searched after the system's (-idirafter).
if(YUMOE_WITH_TORCH)
  # oneDNN: the worker's matrix products. Opened at run time, not linked: LibTorch carries another
  # version of it, and symbols of the two mix up (worker/model/product.cpp).
  find_library(YUMOE_DNNL_LIBRARY NAMES libdnnl.so.2 dnnl REQUIRED)
  find_path(YUMOE_DNNL_INCLUDE dnnl.h REQUIRED)
  add_library(yumoe_dnnl INTERFACE)
  target_include_directories(yumoe_dnnl SYSTEM INTERFACE ${YUMOE_DNNL_INCLUDE})
  target_compile_definitions(yumoe_dnnl INTERFACE YUMOE_DNNL_LIBRARY="${YUMOE_DNNL_LIBRARY}")
  target_link_libraries(yumoe_dnnl INTERFACE ${CMAKE_DL_LIBS})
  if(NOT YUMOE_PYTHON_ENV)  # where launch/setup puts it
    file(SHA256 ${PROJECT_SOURCE_DIR}/launch/requirements.txt digest)
    string(SUBSTRING ${digest} 0 12 digest)
    set(YUMOE_PYTHON_ENV "$ENV{HOME}/.cache/yumoe/python-${digest}")
  endif()
  file(GLOB YUMOE_TORCH_DIR "${YUMOE_PYTHON_ENV}/lib/python3.*/site-packages/torch")
  if(NOT YUMOE_TORCH_DIR)
    message(FATAL_ERROR "no torch under YUMOE_PYTHON_ENV='${YUMOE_PYTHON_ENV}'. Run launch/setup, or "
                        "configure with -DYUMOE_WITH_TORCH=OFF for the coordinator alone.")
  endif()
  add_library(yumoe_torch INTERFACE)
  target_compile_options(yumoe_torch INTERFACE
    "SHELL:-idirafter ${YUMOE_TORCH_DIR}/include"
    "SHELL:-idirafter ${YUMOE_TORCH_DIR}/include/torch/csrc/api/include")
  target_link_libraries(yumoe_torch INTERFACE
    "-L${YUMOE_TORCH_DIR}/lib" "-Wl,-rpath,${YUMOE_TORCH_DIR}/lib"
    "-Wl,-rpath-link,${YUMOE_TORCH_DIR}/lib" torch_cpu c10)
endif()

# blst: BLS12-381, built from source by launch/setup.
if(DEFINED ENV{XDG_CACHE_HOME})
  set(YUMOE_CACHE_ROOT "$ENV{XDG_CACHE_HOME}")
else()
  set(YUMOE_CACHE_ROOT "$ENV{HOME}/.cache")
endif()
set(YUMOE_BLST_DIR "${YUMOE_CACHE_ROOT}/yumoe/blst-d7bef6b425dc" CACHE PATH
    "Folder with blst's libblst.a and include/blst.h (launch/setup makes it)")
if(NOT EXISTS "${YUMOE_BLST_DIR}/complete")
  message(FATAL_ERROR "no blst under YUMOE_BLST_DIR='${YUMOE_BLST_DIR}'. Run launch/setup.")
endif()
add_library(yumoe_blst STATIC IMPORTED)
set_target_properties(yumoe_blst PROPERTIES
  IMPORTED_LOCATION "${YUMOE_BLST_DIR}/libblst.a"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${YUMOE_BLST_DIR}/include"
  INTERFACE_INCLUDE_DIRECTORIES "${YUMOE_BLST_DIR}/include")
