// The parameters of each kernel. bnengine/fused/cuda declares them, and `python -m tests.layouts` writes this file from
// there; a test compares the two. T, S, Y, A and H are the template parameters of the kernel.
#pragma once

#define PARAMETERS_cast \
  const S* x, T* y, index size

#define PARAMETERS_moments \
  const T* x, double* batch, double* pending, double* partial, unsigned* arrivals, index rows, index channels, \
  index stride, bool adds

#define PARAMETERS_normalize \
  const double* statistics, const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const T* x, const T* add, T* y, \
  index rows, index channels, index stride, double eps, double slope

#define PARAMETERS_batch_norm \
  const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const T* x, const T* add, double* batch, double* pending, \
  T* y, index rows, index channels, index stride, double eps, double slope, bool adds

#define PARAMETERS_batch_norm_sums \
  const double* statistics, const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const T* dy, const T* x, \
  const T* y, const T* add, Arithmetic<T>* dgamma, Arithmetic<T>* dbeta, double* sums, double* partial, \
  unsigned* arrivals, index rows, index channels, index stride, double eps, double slope, bool adds_dgamma, \
  bool adds_dbeta

#define PARAMETERS_batch_norm_backward \
  const double* statistics, const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const double* sums, const T* dy, \
  const T* x, const T* y, const T* add, T* dx, T* dadd, index rows, index channels, index stride, double eps, \
  double slope, bool batch_statistics, bool adds_dx

#define PARAMETERS_batch_norm_gradients \
  const double* statistics, const Arithmetic<T>* gamma, const Arithmetic<T>* beta, const T* dy, const T* x, \
  const T* y, const T* add, T* dx, T* dadd, Arithmetic<T>* dgamma, Arithmetic<T>* dbeta, index rows, index channels, \
  index stride, double eps, double slope, bool batch_statistics, bool adds_dx, bool adds_dgamma, bool adds_dbeta

#define PARAMETERS_commit \
  const bool* ok, const double* running, const double* pending, const double* decay, const bool* unbiased, \
  double* out, index channels

#define PARAMETERS_merge_statistics \
  const double* a, const double* b, double* out, index channels

#define PARAMETERS_bias_activation \
  const Arithmetic<T>* b, const T* z, T* y, index rows, index outputs, double slope

#define PARAMETERS_bias_activation_backward \
  const T* dy, const T* y, T* dz, Arithmetic<T>* db, double* partial, unsigned* arrivals, index rows, index outputs, \
  double slope, bool adds_db

#define PARAMETERS_dropout \
  const index* step, const T* x, const index* samples, T* y, bool* keep, index rows, index features, index seed_low, \
  index seed_high, index layer, index threshold, double rate

#define PARAMETERS_dropout_backward \
  const T* dy, const bool* keep, T* dx, index size, double rate, bool adds

#define PARAMETERS_gather \
  const T* x, const Y* target, const Arithmetic<T>* weights, const index* samples, const Arithmetic<T>* divisors, \
  const index* order, const index* cursor, T* x_out, Y* target_out, Arithmetic<T>* weights_out, index* samples_out, \
  Arithmetic<T>* divisor_out, index rows, index features, index targets, index weighed, index offset

#define PARAMETERS_softmax_cross_entropy \
  const Arithmetic<T>* class_weights, const Arithmetic<T>* divisor, const Arithmetic<T>* scale, const T* logits, \
  const Y* target, const Arithmetic<T>* sample_weights, Arithmetic<T>* value, T* dlogits, double* partial, \
  unsigned* arrivals, index rows, index classes, double label_smoothing, bool adds

#define PARAMETERS_elementwise_loss \
  const Arithmetic<T>* divisor, const Arithmetic<T>* scale, const T* prediction, const Arithmetic<T>* target, \
  const Arithmetic<T>* sample_weights, Arithmetic<T>* value, T* gradient, double* partial, unsigned* arrivals, \
  index rows, index outputs, bool adds

#define PARAMETERS_correct \
  const T* output, const Y* target, double* out, double* partial, unsigned* arrivals, index rows, index classes, \
  bool adds

#define PARAMETERS_activation \
  const T* x, T* y, index size, double slope

#define PARAMETERS_activation_backward \
  const T* dy, const T* x, const T* y, T* dx, index size, double slope, bool adds

#define PARAMETERS_total \
  const T* a, const T* b, T* out, index size, bool adds

#define PARAMETERS_check_step \
  const A* loss, const A* gradients, const double* pending, const A* scaling, bool* ok, double* norm, A* factor, \
  A* new_scaling, double* partial, unsigned* arrivals, index size, index pending_size, index every, double clip, \
  double growth, double backoff

#define PARAMETERS_average \
  const bool* ok, const A* averaged, const A* values, A* out, index size, double decay

#define PARAMETERS_count_step \
  const bool* ok, const index* counters, const index* cursor, index* out, index* new_cursor, index rows

#define PARAMETERS_add_epoch_sums \
  const A* value, const A* divisor, const double* correct, const bool* ok, const double* sums, double* out, \
  index rows

#define PARAMETERS_sgd \
  const A* table, const index* counters, const bool* ok, const A* factor, const index* frozen, const A* parameters, \
  const A* gradients, const A* velocity, A* new_parameters, A* new_velocity, H* copy16, index size, \
  index table_rows, index table_columns, index frozen_count, index decay_end, double weight_decay, double momentum, \
  bool nesterov, bool decoupled
#define SLOTS_sgd velocity,
#define NEW_SLOTS_sgd new_velocity,
#define SETTINGS_sgd momentum,
#define FLAGS_sgd nesterov,

#define PARAMETERS_rmsprop \
  const A* table, const index* counters, const bool* ok, const A* factor, const index* frozen, const A* parameters, \
  const A* gradients, const A* square, const A* mean, const A* velocity, A* new_parameters, A* new_square, \
  A* new_mean, A* new_velocity, H* copy16, index size, index table_rows, index table_columns, index frozen_count, \
  index decay_end, double weight_decay, double rho, double eps, double momentum, bool eps_inside, bool decoupled
#define SLOTS_rmsprop square, mean, velocity,
#define NEW_SLOTS_rmsprop new_square, new_mean, new_velocity,
#define SETTINGS_rmsprop rho, eps, momentum,
#define FLAGS_rmsprop eps_inside,

#define PARAMETERS_adam \
  const A* table, const index* counters, const bool* ok, const A* factor, const index* frozen, const A* parameters, \
  const A* gradients, const A* m, const A* v, const A* largest, A* new_parameters, A* new_m, A* new_v, \
  A* new_largest, H* copy16, index size, index table_rows, index table_columns, index frozen_count, index decay_end, \
  double weight_decay, double beta1, double beta2, double eps, bool decoupled
#define SLOTS_adam m, v, largest,
#define NEW_SLOTS_adam new_m, new_v, new_largest,
#define SETTINGS_adam beta1, beta2, eps,
#define FLAGS_adam

#define PARAMETERS_lion \
  const A* table, const index* counters, const bool* ok, const A* factor, const index* frozen, const A* parameters, \
  const A* gradients, const A* m, A* new_parameters, A* new_m, H* copy16, index size, index table_rows, \
  index table_columns, index frozen_count, index decay_end, double weight_decay, double beta1, double beta2, \
  bool decoupled
#define SLOTS_lion m,
#define NEW_SLOTS_lion new_m,
#define SETTINGS_lion beta1, beta2,
#define FLAGS_lion
