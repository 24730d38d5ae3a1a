// The operator of the location-scale families that are not Gaussian, for what records and differentiates it.
#pragma once

#include "normal_rsample.h"

namespace vae_ext {

// vae_ext::location_scale_rsample and its backward, of the standard distribution that the noise says. `kind` is the
// Gaussian one, std or log_std.
Tensor call_location_scale(const Tensor& loc, const Tensor& scale, const NoiseArguments& noise, std::string_view kind,
                           int64_t event_ndim);
std::vector<Tensor> call_location_scale_backward(const Tensor& grad, const Tensor& loc, const Tensor& scale,
                                                 const NoiseArguments& noise, std::string_view kind, int64_t event_ndim,
                                                 std::array<bool, 2> wanted);

}  // namespace vae_ext
