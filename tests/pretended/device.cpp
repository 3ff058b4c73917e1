// A device of torch whose memory is that of the CPU, and whose tensors mix with the CPU's as little as those of CUDA.
//
// What its tensors are asked for, the CPU computes (`at::native::cpu_fallback`). Beside that it has what every device
// must: memory, copies, views, and the operations that torch does not hand on.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>

namespace {

using at::Tensor;
using std::optional;

const c10::Device HERE(c10::DeviceType::PrivateUse1, 0);

bool is_here(const Tensor& tensor) { return tensor.device().type() == HERE.type(); }

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return HERE.type(); }
  c10::Device exchangeDevice(c10::Device) const override { return HERE; }
  c10::Device getDevice() const override { return HERE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return c10::Stream(c10::Stream::DEFAULT, HERE); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Memory final : at::Allocator {
  at::DataPtr allocate(size_t size) override {
    void* memory = c10::alloc_cpu(size);
    return {memory, memory, &c10::free_cpu, HERE};
  }
  at::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }
};
Memory memory;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &memory);

struct Hooks final : at::PrivateUse1HooksInterface {
  at::Generator generator = at::detail::createCPUGenerator();
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return generator; }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::detail::createCPUGenerator(); }
  at::Device getDeviceFromPtr(void*) const override { return HERE; }
};
const bool is_registered = (at::RegisterPrivateUse1HooksInterface(new Hooks()), true);

// The same memory as a tensor of the CPU.
Tensor on_cpu(const Tensor& tensor) {
  if (!tensor.defined() || !is_here(tensor)) return tensor;
  return at::for_blob(tensor.mutable_data_ptr(), tensor.sizes())
      .strides(tensor.strides())
      .options(tensor.options().device(c10::kCPU).requires_grad(false))
      .make_tensor();
}

optional<Tensor> on_cpu(const optional<Tensor>& tensor) {
  return tensor.has_value() && tensor->defined() ? optional<Tensor>(on_cpu(*tensor)) : std::nullopt;
}

Tensor brought_here(const Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  Tensor copy = at::empty_like(tensor, tensor.options().device(HERE));
  on_cpu(copy).copy_(tensor);
  return copy;
}

// Some devices have no float64, as Apple's.
void check_dtype(at::ScalarType dtype) {
  static const bool has_float64 = std::getenv("PRETENDED_WITHOUT_FLOAT64") == nullptr;
  TORCH_CHECK(has_float64 || dtype != at::kDouble, "a pretended device without float64");
}

Tensor empty(
    c10::IntArrayRef size, optional<at::ScalarType> dtype, optional<at::Layout>, optional<at::Device>, optional<bool>,
    optional<at::MemoryFormat> format) {
  check_dtype(c10::dtype_or_default(dtype));
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(size, &memory, keys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, optional<at::ScalarType> dtype, optional<at::Layout>,
    optional<at::Device>, optional<bool>) {
  check_dtype(c10::dtype_or_default(dtype));
  const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, keys, c10::dtype_or_default(dtype));
}

const Tensor& resize(const Tensor& self, c10::SymIntArrayRef size, optional<at::MemoryFormat>) {
  auto* implementation = self.unsafeGetTensorImpl();
  implementation->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t bytes = (implementation->numel() + implementation->storage_offset()) * implementation->itemsize();
  auto* storage = self.storage().unsafeGetStorageImpl();
  if (bytes > storage->nbytes()) {
    at::DataPtr larger = memory.allocate(bytes);
    if (storage->data()) std::memcpy(larger.get(), storage->data(), storage->nbytes());
    storage->set_data_ptr_noswap(std::move(larger));
    storage->set_nbytes(bytes);
  }
  return self;
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(self));
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  if (to.sizes() != self.sizes()) resize(to, self.sym_sizes(), std::nullopt);  // else it may be a view
  return copy_from(self, to, false);
}

at::Scalar item(const Tensor& self) { return on_cpu(self).item(); }

Tensor as_strided(const Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride, optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

Tensor& set(Tensor& self, at::Storage storage, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  auto* implementation = self.unsafeGetTensorImpl();
  implementation->set_storage_keep_dtype(std::move(storage));
  implementation->set_storage_offset(offset);
  implementation->set_sizes_and_strides(size, stride);
  return self;
}

Tensor convolution(
    const Tensor& x, const Tensor& weight, const optional<Tensor>& bias, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups) {
  TORCH_CHECK(is_here(x) && is_here(weight), "a convolution of two devices");
  const at::NoGradGuard without_gradients;
  return brought_here(at::convolution_symint(
      on_cpu(x), on_cpu(weight), on_cpu(bias), stride, padding, dilation, transposed, output_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(
    const Tensor& grad, const Tensor& x, const Tensor& weight, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding,
    c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups,
    std::array<bool, 3> wanted) {
  const at::NoGradGuard without_gradients;
  const std::vector<c10::SymInt> bias{transposed ? weight.sym_size(1) * groups : weight.sym_size(0)};
  auto [of_x, of_weight, of_bias] = at::convolution_backward_symint(
      on_cpu(grad), on_cpu(x), on_cpu(weight), at::OptionalSymIntArrayRef(bias), stride, padding, dilation, transposed,
      output_padding, groups, wanted);
  return {brought_here(of_x), brought_here(of_weight), brought_here(of_bias)};
}

// It writes its statistics, which its schema does not say.
std::tuple<Tensor, Tensor, Tensor> batch_norm(
    const Tensor& x, const optional<Tensor>& weight, const optional<Tensor>& bias, const optional<Tensor>& mean,
    const optional<Tensor>& var, bool training, double momentum, double eps) {
  const at::NoGradGuard without_gradients;
  auto [y, save_mean, save_var] = at::native_batch_norm(
      on_cpu(x), on_cpu(weight), on_cpu(bias), on_cpu(mean), on_cpu(var), training, momentum, eps);
  return {brought_here(y), brought_here(save_mean), brought_here(save_var)};
}

// Everything else. As on CUDA, only numbers and indices may come from the CPU.
void on_the_cpu(const c10::OperatorHandle& operation, torch::jit::Stack* stack) {
  const std::string& name = operation.schema().name();
  bool any_here = false, any_elsewhere = false;
  const auto see = [&](const Tensor& tensor) {
    if (!tensor.defined()) return;
    any_here |= is_here(tensor);
    any_elsewhere |= !is_here(tensor) && tensor.dim() > 0;
  };
  for (const auto& given : torch::jit::last(*stack, operation.schema().arguments().size())) {
    if (given.isTensor()) see(given.toTensor());
    if (given.isTensorList()) {
      for (const Tensor& tensor : given.toTensorVector()) see(tensor);
    }
  }
  const bool may_mix = name == "aten::copy_" || name == "aten::_pack_padded_sequence";  // whose lengths are numbers
  TORCH_CHECK(may_mix || !(any_here && any_elsewhere), name, " of two devices");
  at::native::cpu_fallback(operation, stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_the_cpu>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) { library.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("_local_scalar_dense", &item);
  library.impl("_reshape_alias", &at::native::_reshape_alias);
  library.impl("as_strided", &as_strided);
  library.impl("convolution_backward_overrideable", &convolution_backward);
  library.impl("convolution_overrideable", &convolution);
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("native_batch_norm", &batch_norm);
  library.impl("resize_", &resize);
  library.impl("set_.source_Storage_storage_offset", &set);
  library.impl("unfold", &at::native::unfold);
  library.impl("view", &at::native::view);
  library.impl("view_as_complex", &at::native::view_as_complex);
  library.impl("view_as_real", &at::native::view_as_real);
}
