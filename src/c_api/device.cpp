#include <vector>

#include "c_api/handles.hpp"
#include "orrery/machine.hpp"
#include "orrery/version.hpp"

using namespace orrery;
using namespace orrery::c_api;

int orrery_abi_version(void) {
  return ORRERY_ABI_VERSION;
}

const char* orrery_version(void) {
  return kVersion;
}

int orrery_cuda_device_count(void) {
  int count = 0;
  guarded(ToNobody{}, [&] { count = static_cast<int>(cuda_devices().size()); });
  return count;
}

orrery_status orrery_cuda_device_info(int index, orrery_device_info* info, char* message, size_t message_size) {
  return guarded(ToBuffer{message, message_size}, [&] {
    const std::vector<CudaDeviceInfo> devices = cuda_devices();
    if (index < 0 || index >= static_cast<int>(devices.size())) {
      refuse("there is no CUDA device ", index, "; this process may use ", devices.size());
    }
    const CudaDeviceInfo& device = devices[static_cast<std::size_t>(index)];
    orrery_device_info filled = ORRERY_DEVICE_INFO_INIT;
    give(device.name, filled.name, sizeof filled.name);
    filled.compute_capability = device.compute_capability;
    filled.multiprocessors = device.multiprocessors;
    filled.memory_bytes = device.memory_bytes;
    filled.l2_bytes = device.l2_bytes;
    write(filled, info, "info");
  });
}

int64_t orrery_cuda_refuses(orrery_dtype dtype, int head_dim, char* text, size_t text_size) {
  return guarded_number(ToNobody{}, [&] { return give(cuda_refuses(dtype_of(dtype), head_dim), text, text_size); });
}

int64_t orrery_machine(char* text, size_t text_size) {
  return guarded_number(ToNobody{}, [&] {
    const Machine machine = describe_machine();
    std::string lines =
        concat("version ", machine.version, "\ncompiler ", machine.compiler, "\nbuild_type ", machine.build_type,
               "\ncpu ", machine.cpu, "\ncores ", machine.cores, "\nsimd ", machine.simd, "\nmpi ", machine.mpi,
               "\ncuda_runtime ", machine.cuda_runtime, "\ncuda_driver ", machine.cuda_driver, "\n");
    for (const CudaDeviceInfo& device : machine.cuda_devices) lines += concat("cuda_device ", device.name, "\n");
    return give(lines, text, text_size);
  });
}

orrery_status orrery_memory_create(orrery_device device, size_t bytes, orrery_memory** memory, char* message,
                                   size_t message_size) {
  return guarded(ToBuffer{message, message_size}, [&] {
    require(memory, "memory");
    *memory = nullptr;
    *memory = new orrery_memory{DeviceMemory(device_of(device), bytes, "a caller")};
  });
}

void orrery_memory_destroy(orrery_memory* memory) {
  delete memory;
}

void* orrery_memory_data(const orrery_memory* memory) {
  return memory == nullptr ? nullptr : memory->memory.data();
}

orrery_status orrery_copy(void* into, const void* from, size_t bytes, char* message, size_t message_size) {
  return guarded(ToBuffer{message, message_size}, [&] {
    if (bytes == 0) return;
    require(into, "into");
    require(from, "from");
    copy_bytes(into, from, bytes);
  });
}

orrery_status orrery_synchronize(orrery_device device, char* message, size_t message_size) {
  return guarded(ToBuffer{message, message_size}, [&] { synchronize(device_of(device)); });
}
