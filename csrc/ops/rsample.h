// What the operators that sample share.
#pragma once

#include "autograd.h"
#include "gradients.h"

namespace vae_ext {

// The noise of a call, as the autograd kernels pass it on: sizes may be symbolic.
struct NoiseArguments {
  Tensor rng_state;
  std::optional<c10::SymInt> num_samples;
  c10::SymInt first_row;
  int64_t stream;
  // Of location_scale_rsample; none: of the Gaussian operators.
  std::optional<StandardKind> standard = {};
};
void save_noise(AutogradContext* ctx, const NoiseArguments& noise);
NoiseArguments saved_noise(AutogradContext* ctx, const Tensor& rng_state);

// std for scale, log_std for log_scale: a scale is to its location-scale family what std is to the Gaussian, whose
// kernels and autograd node all families share.
std::string_view gaussian_kind(std::string_view kind);

// Checks the draw against the layout and adds it to the spec of a sampling kernel, which `draw` must outlive.
Spec with_noise(Spec spec, const Layout& layout, const NoiseDraw& draw, std::optional<int64_t> num_samples);

// z = mean + std epsilon, checked and computed; its gradients; and the same recorded for autograd. With another
// standard distribution than the normal, mean and std are the location and the scale of that family:
// location_scale_rsample.
Tensor rsample(const Layout& layout, const Tensor& mean, const Tensor& scale, const NoiseDraw& draw,
               std::optional<int64_t> num_samples, std::string_view kind);
std::vector<Tensor> rsample_gradients(const Layout& layout, const Tensor& grad, const Tensor& mean, const Tensor& scale,
                                      const NoiseDraw& draw, std::optional<int64_t> num_samples, std::string_view kind,
                                      std::array<bool, 2> wanted);
Tensor recorded_rsample(const Tensor& mean, const Tensor& scale, const NoiseArguments& noise, std::string_view kind,
                        int64_t event_ndim);

Tensor empty_samples(const Layout& layout, std::optional<int64_t> num_samples);
Tensor sample_gradient(const Layout& layout, const Tensor& grad, std::optional<int64_t> num_samples);

// The wanted gradients of mean and scale, by vae_ext::normal_rsample_backward or location_scale_rsample_backward.
std::vector<Tensor> rsample_backward(const Tensor& grad, const Tensor& mean, const Tensor& scale,
                                     const NoiseArguments& noise, std::string_view kind, int64_t event_ndim,
                                     std::array<bool, 2> wanted);
// The same as differentiable expressions.
std::vector<Tensor> differentiable_rsample_backward(const Tensor& grad, const Tensor& mean, const Tensor& scale,
                                                    const NoiseArguments& noise, std::string_view kind,
                                                    int64_t event_ndim, std::array<bool, 2> wanted);

// Epsilon of a z shaped like `z`, as a tensor of float32.
Tensor epsilon_like(const Tensor& z, const NoiseArguments& noise, int64_t event_ndim);

}  // namespace vae_ext
