#include <pybind11/pybind11.h>

#include <cstring>
#include <sstream>
#include <string>

#include "cpu/dispatch.h"

namespace py = pybind11;

namespace {

// vae_ext/_native.py finds this text in the file, and so knows of a mismatch before it loads the library.
constexpr const char* kTorchMarker = "vae_ext built with torch " VAE_EXT_TORCH_VERSION "\n";

std::string built_with_torch() {
  const std::string text = kTorchMarker;
  const size_t start = std::strlen("vae_ext built with torch ");
  return text.substr(start, text.size() - start - 1);
}

py::list split(const std::string& text, char separator) {
  py::list parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.append(part);
  return parts;
}

py::object none_if_empty(const std::string& text) { return text.empty() ? py::object(py::none()) : py::str(text); }

py::dict build_info() {
  py::dict info;
  info["torch"] = built_with_torch();
  info["compiler"] = VAE_EXT_COMPILER;
  info["build_type"] = VAE_EXT_BUILD_TYPE;
  info["build_dir"] = VAE_EXT_BUILD_DIR;
  info["cuda"] = none_if_empty(VAE_EXT_CUDA_VERSION);
  info["cuda_architectures"] = split(VAE_EXT_CUDA_ARCHITECTURES, ',');
  info["isas"] = split(VAE_EXT_ISAS, ',');
  info["commit"] = none_if_empty(VAE_EXT_COMMIT);
  info["sanitizers"] = none_if_empty(VAE_EXT_SANITIZERS);
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The native part of vae_ext; its operators are in torch.ops.vae_ext.";
  m.def("build_info", &build_info, "How this library was built.");
  m.def("cpu_capability", &vae_ext::cpu::capability, "The instruction set the CPU kernels run with.");
}
