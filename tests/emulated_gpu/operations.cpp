// PyTorch's operations on cards that are not there: each is computed by PyTorch's own CPU kernel on the same memory.
//
// What an operation makes is allocated on the card when it is called, with the shape that its `meta` kernel gives; the
// computing is work on the current stream of the card, done when runtime.cpp says. So nothing that Python sees differs
// from a card: allocator, streams, events, graphs and errors are PyTorch's own.

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/extension.h>
#include <torch/library.h>

#include <functional>

using at::Tensor;
using c10::IValue;
using torch::jit::Stack;
using Values = std::vector<IValue>;

extern "C" int emulated_gpu_add(cudaStream_t stream, std::function<void()>* work);

namespace at::native {
Tensor& copy_(Tensor& self, const Tensor& from, bool non_blocking);
}

namespace {

// The most bytes that an operation may take and make, for it to be computed; above, all that it makes is left as it is.
const double MOST_BYTES = std::getenv("EMULATED_GPU_BYTES") ? std::atof(std::getenv("EMULATED_GPU_BYTES")) : HUGE_VAL;

// Kernels alone: no gradients, no casts, nothing of Python.
struct Alone {
    c10::InferenceMode inference{true};
    c10::impl::ExcludeDispatchKeyGuard python{c10::DispatchKeySet(
        {c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot, c10::DispatchKey::PreDispatch})};
    c10::impl::ExcludeDispatchKeyGuard casts{c10::autocast_dispatch_keyset};
    c10::impl::ExcludeDispatchKeyGuard gradients{c10::autograd_dispatch_keyset_with_ADInplaceOrView};
};

void add(std::function<void()> work) {
    auto stream = c10::cuda::getCurrentCUDAStream().stream();
    C10_CUDA_CHECK(static_cast<cudaError_t>(emulated_gpu_add(stream, &work)));
}

double bytes_of(const Tensor& tensor) { return tensor.defined() ? double(tensor.numel()) * tensor.element_size() : 0; }

// The memory of a card's tensor as a tensor of the CPU.
Tensor on_host(const Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    auto options = at::TensorOptions().device(at::kCPU).dtype(tensor.dtype());
    if (!tensor.numel()) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
    void* data = tensor.unsafeGetTensorImpl()->mutable_data();
    return at::from_blob(data, tensor.sizes(), tensor.strides(), [](void*) {}, options);
}

// As it is when the operation is called: a number on the host may be another before the work is done.
Tensor for_work(const Tensor& tensor) {
    if (!tensor.defined() || tensor.is_cuda()) return on_host(tensor);
    return tensor.unsafeGetTensorImpl()->is_wrapped_number() ? tensor : tensor.clone();
}

Tensor shape_of(const Tensor& tensor) {
    if (!tensor.defined() || (!tensor.is_cuda() && !tensor.dim())) return tensor;
    return at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
}

template <class Function>
IValue each(const IValue& value, Function function) {
    if (value.isTensor()) return function(value.toTensor());
    if (value.isTensorList()) {
        c10::List<Tensor> list;
        for (const Tensor& one : value.toTensorVector()) list.push_back(function(one));
        return list;
    }
    if (value.isList() && value.toList().elementType()->isSubtypeOf(*c10::OptionalType::ofTensor())) {
        c10::List<std::optional<Tensor>> list;
        for (const IValue one : value.toList())
            list.push_back(one.isTensor() ? std::optional<Tensor>(function(one.toTensor())) : std::nullopt);
        return list;
    }
    return value;
}

bool has_mask(const IValue& value) {
    bool found = false;
    each(value, [&](const Tensor& one) { return found |= one.defined() && one.scalar_type() == at::kBool, one; });
    return found;
}

// Operations whose results have a shape that only the card knows, for which CUDA waits.
bool waits(const std::string& name, const Values& given) {
    static const std::set<std::string> always = {
        "aten::nonzero",    "aten::masked_select",      "aten::_unique2",  "aten::unique_dim",
        "aten::unique_consecutive", "aten::equal", "aten::bincount",
    };
    return always.count(name) || (name == "aten::index" && has_mask(given[1])) ||
           (name == "aten::_index_put_impl_" && has_mask(given[1]) && given[2].toTensor().numel() != 1) ||
           (name == "aten::repeat_interleave" && given.back().isNone());
}

Tensor attention(const std::string& name, const Values& given) {
    Tensor query = given[0].toTensor(), key = given[1].toTensor(), value = given[2].toTensor();
    const bool flash = name.find("flash") != std::string::npos;
    std::optional<Tensor> bias;
    if (!flash && given[3].isTensor() && given[3].toTensor().defined()) bias = given[3].toTensor();
    const bool causal = given[flash ? 4 : 6].toBool();
    const auto scale = given.back().toOptional<double>();
    const int64_t share = query.size(1) / key.size(1);
    key = key.repeat_interleave(share, 1), value = value.repeat_interleave(share, 1);
    auto made = at::_scaled_dot_product_attention_math(query, key, value, bias, 0.0, causal, std::nullopt, scale, false);
    return std::get<0>(made);
}

// What an operation computes on the CPU, where it has a kernel there for those types.
Stack compute(const c10::OperatorHandle& operation, const std::string& name, const Values& given) {
    const std::string& kind = operation.schema().overload_name();
    if (name.find("aten::_scaled_dot_product_") == 0 && name.find("_attention") != std::string::npos)
        return {attention(name, given)};
    if (kind.find("dtype") == 0) {  // products whose result has another type
        Tensor product = at::matmul(given[0].toTensor().to(at::kFloat), given[1].toTensor().to(at::kFloat));
        if (kind == "dtype") return {product.to(given[2].toScalarType())};
        return {given.back().toTensor().copy_(product)};
    }
    Stack stack(given.begin(), given.end());
    std::optional<at::ScalarType> narrowed;
    if (name == "aten::_softmax" && given[2].toBool()) {
        stack[0] = given[0].toTensor().to(at::kFloat);
        stack[2] = false;
    } else if (name == "aten::histc" && given[0].toTensor().scalar_type() == at::kInt) {
        stack[0] = given[0].toTensor().to(at::kFloat);
        narrowed = at::kInt;
    }
    operation.callBoxed(&stack);
    if (narrowed) stack[0] = stack[0].toTensor().to(*narrowed);
    return stack;
}

Stack shapes_made(const c10::OperatorHandle& operation, const Values& given) {
    const std::string& kind = operation.schema().overload_name();
    if (kind == "dtype") return {at::matmul(given[0].toTensor(), given[1].toTensor()).to(given[2].toScalarType())};
    if (kind == "dtype_out") return {given.back()};
    Stack stack(given.begin(), given.end());
    operation.callBoxed(&stack);
    return stack;
}

// Which argument each result is, or -1 if it is new.
std::vector<int> arguments_returned(const c10::FunctionSchema& schema) {
    std::vector<int> found;
    for (const auto& made : schema.returns()) {
        int from = -1;
        for (size_t i = 0; made.alias_info() && i < schema.arguments().size() && from < 0; i++) {
            auto* alias = schema.arguments()[i].alias_info();
            if (alias && alias->beforeSets() == made.alias_info()->beforeSets()) from = int(i);
        }
        found.push_back(from);
    }
    return found;
}

// The second stream goes on when the first has done what it has now.
void follow(c10::cuda::CUDAStream first, c10::cuda::CUDAStream second) {
    cudaEvent_t event;
    cudaEventCreate(&event);
    {
        c10::cuda::CUDAGuard there(first.device());
        cudaEventRecord(event, first.stream());
    }
    c10::cuda::CUDAGuard there(second.device());
    cudaStreamWaitEvent(second.stream(), event, 0);
}

// As PyTorch does it, but for copies that it has a kernel for: on the stream of what is copied.
void copy_over(Tensor to, const Tensor& from, bool non_blocking) {
    const bool same = to.dtype() == from.dtype() && to.sizes() == from.sizes() && to.is_contiguous() && from.is_contiguous();
    if (!to.is_cuda() || !from.is_cuda() || same) {
        at::native::copy_(to, from, non_blocking);
        return;
    }
    c10::cuda::CUDAGuard guard(from.device());
    auto stream = c10::cuda::getCurrentCUDAStream(from.device().index());
    auto other = c10::cuda::getCurrentCUDAStream(to.device().index());
    const bool apart = to.device() != from.device();
    if (apart) follow(other, stream);
    if (bytes_of(to) <= MOST_BYTES)
        add([to = on_host(to), from = on_host(from)]() mutable { Alone alone; to.copy_(from); });
    if (apart) follow(stream, other);
}

c10::Device device_of(const std::string& name, const c10::FunctionSchema& schema, const Values& given) {
    std::optional<c10::Device> device;
    for (size_t i = 0; i < given.size(); i++) {
        const bool any = name == "aten::copy_" || schema.arguments()[i].name() == "indices";
        each(given[i], [&](const Tensor& one) {
            if (one.defined() && one.is_cuda() && !device) device = one.device();
            const bool fits = !one.defined() || any || (one.is_cuda() ? one.device() == *device : !one.dim());
            TORCH_CHECK(fits, name, ": Expected all tensors to be on the same device");
            return one;
        });
    }
    TORCH_CHECK(device, name, ": no tensor of a card");
    return *device;
}

void boxed(const c10::OperatorHandle& operation, c10::DispatchKeySet, Stack* stack) {
    const auto& schema = operation.schema();
    const std::string& name = schema.name();
    const size_t count = schema.arguments().size();
    const Values given(stack->end() - count, stack->end());
    stack->erase(stack->end() - count, stack->end());
    const c10::Device device = device_of(name, schema, given);
    c10::cuda::CUDAGuard guard(device);
    if (name == "aten::copy_") {
        copy_over(given[0].toTensor(), given[1].toTensor(), given[2].toBool());
        stack->push_back(given[0]);
        return;
    }

    const auto returned = arguments_returned(schema);
    Values on_cpu, shapes;
    Stack found;
    bool known = !waits(name, given);
    {
        Alone alone;
        for (const IValue& value : given) {
            on_cpu.push_back(each(value, for_work));
            shapes.push_back(each(value, shape_of));
        }
        try {
            if (known) found = shapes_made(operation, shapes);
        } catch (const std::exception&) {  // no meta kernel
            known = false;
        }
    }
    Values made;
    double bytes = 0;
    for (size_t i = 0; known && i < returned.size(); i++) {
        if (const int from = returned[i]; from >= 0) {
            made.push_back(given[from]);
            if (given[from].isTensor() && given[from].toTensor().sizes() != shapes[from].toTensor().sizes()) {
                given[from].toTensor().resize_(shapes[from].toTensor().sizes());
                on_cpu[from] = on_host(given[from].toTensor());
            }
        } else if (found[i].isTensor() && found[i].toTensor().defined()) {
            const Tensor shape = found[i].toTensor();
            made.push_back(at::empty_strided(shape.sizes(), shape.strides(), shape.options().device(device)));
        } else {
            made.push_back(found[i]);
            known = !found[i].isList();
        }
    }
    for (const Values& values : {given, made})
        for (const IValue& value : values)
            each(value, [&](const Tensor& one) { return bytes += bytes_of(one), one; });
    if (!known) {
        C10_CUDA_CHECK(cudaStreamSynchronize(c10::cuda::getCurrentCUDAStream().stream()));
        {
            Alone alone;
            found = compute(operation, name, on_cpu);
        }
        for (size_t i = 0; i < returned.size(); i++)
            stack->push_back(returned[i] >= 0 ? given[returned[i]] : each(found[i], [&](const Tensor& one) {
                Tensor there = at::empty_strided(one.sizes(), one.strides(), one.options().device(device));
                add([to = on_host(there), one]() mutable { Alone alone; to.copy_(one); });
                return there;
            }));
        return;
    }
    Values into;
    {
        Alone alone;
        for (const IValue& one : made) into.push_back(each(one, on_host));
    }
    const bool left_out = bytes > MOST_BYTES;
    add([=] {
        Alone alone;
        Stack found;
        if (!left_out) found = compute(operation, name, on_cpu);
        for (size_t i = 0; i < into.size(); i++) {
            if (returned[i] >= 0 || !into[i].isTensor() || !into[i].toTensor().defined()) continue;
            Tensor to = into[i].toTensor();
            if (left_out && bytes_of(to) <= MOST_BYTES) to.zero_();
            if (i < found.size()) to.copy_(found[i].toTensor());
        }
    });
    for (const IValue& one : made) stack->push_back(one);
}

void take_over(const std::vector<std::string>& names) {
    static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__, __LINE__);
    for (const auto& name : names) library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&boxed>());
}

void add_python(const py::function& function) {
    auto kept = std::shared_ptr<py::function>(new py::function(function), [](py::function* one) {
        py::gil_scoped_acquire python;
        delete one;
    });
    add([kept] {
        py::gil_scoped_acquire python;
        Alone alone;
        try {
            (*kept)();
        } catch (py::error_already_set& error) {
            throw std::runtime_error(error.what());
        }
    });
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
    module.def("take_over", &take_over, "Compute these operations of aten here.");
    module.def("add", &add_python, "Let a function be work on the current stream.");
    module.def("on_host", [](const Tensor& tensor) { Alone alone; return on_host(tensor); });
}
