/*
 * exp, log, sine and cosine without a C library. The float64 ones keep 1e-13 or better of relative accuracy; exp_vf, for the
 * loops that are hot, 2 units in the last place of float32.
 */
#pragma once
#include "base.h"

static inline double bits_to_f64(u64 bits) {
  union {
    u64 bits;
    double value;
  } both = {bits};
  return both.value;
}
static inline u64 f64_to_bits(double value) {
  union {
    double value;
    u64 bits;
  } both = {value};
  return both.bits;
}

/* To the nearest whole number, for |x| < 2^51: the sum with 1.5 * 2^52 has no bits for a fraction. */
static inline double round_f64(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

/* e^x: x = k ln 2 + r with |r| <= ln 2 / 2, Taylor's polynomial of degree 13 for r. */
static inline double exp_f64(double x) {
  if (x != x) return x;
  if (x > 709.7) return __builtin_inf();
  if (x < -745.0) return 0;
  const double k = round_f64(x * 1.4426950408889634);
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  const i64 exponent = (i64)k;
  const i64 half = exponent / 2; /* in two steps, so that denormal results come out right */
  return p * bits_to_f64((u64)(half + 1023) << 52) * bits_to_f64((u64)(exponent - half + 1023) << 52);
}

static inline double sigmoid(double x) { return 1 / (1 + exp_f64(-x)); }

/* ln(1 + y) for y >= 0: ln(u) of u = 1 + y, corrected by what the addition lost. */
static inline double log1p_f64(double y) {
  const double u = 1.0 + y;
  if (u == 1.0) return y;
  if (u == __builtin_inf()) return u;
  const double lost = (y - (u - 1.0)) / u;
  u64 bits = f64_to_bits(u);
  i64 exponent = (i64)(bits >> 52) - 1023;
  double m = bits_to_f64((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) m *= 0.5, exponent += 1;
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s; /* ln m = 2 atanh(s) */
  double p = 1.0 / 19.0;
  p = p * s2 + 1.0 / 17.0;
  p = p * s2 + 1.0 / 15.0;
  p = p * s2 + 1.0 / 13.0;
  p = p * s2 + 1.0 / 11.0;
  p = p * s2 + 1.0 / 9.0;
  p = p * s2 + 1.0 / 7.0;
  p = p * s2 + 1.0 / 5.0;
  p = p * s2 + 1.0 / 3.0;
  p = p * s2 + 1.0;
  return (double)exponent * 0.6931471805599453 + 2.0 * s * p + lost;
}

/* Sine and cosine of x, |x| up to about 2^30: x = k pi/2 + r in three steps (Cody and Waite), polynomials on |r| <= pi/4. */
static inline void sincos_f64(double x, double* sine, double* cosine) {
  const double k = round_f64(x * 0.63661977236758134308);
  const double r = ((x - k * 1.57079632673412561417e+00) - k * 6.07710050630396597660e-11) - k * 2.02226624879595063154e-21;
  const double r2 = r * r;
  double s = -7.6471637318198164759e-13;
  s = s * r2 + 1.6059043836821614599e-10;
  s = s * r2 - 2.5052108385441718775e-08;
  s = s * r2 + 2.7557319223985890653e-06;
  s = s * r2 - 1.9841269841269841270e-04;
  s = s * r2 + 8.3333333333333333333e-03;
  s = s * r2 - 1.6666666666666666667e-01;
  s = s * r2 * r + r;
  double c = 4.7794773323873852974e-14;
  c = c * r2 - 1.1470745597729724714e-11;
  c = c * r2 + 2.0876756987868098979e-09;
  c = c * r2 - 2.7557319223985890653e-07;
  c = c * r2 + 2.4801587301587301587e-05;
  c = c * r2 - 1.3888888888888888889e-03;
  c = c * r2 + 4.1666666666666666667e-02;
  c = c * r2 - 0.5;
  c = c * r2 + 1.0;
  const i64 quadrant = (i64)k & 3;
  const double a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
  *sine = quadrant & 2 ? -a : a;
  *cosine = (quadrant == 1 || quadrant == 2) ? -b : b;
}

/* e^x / 2^k, where k is about x / ln 2. */
static inline __attribute__((always_inline)) vf exp_over_power(vf x, vf k) {
  vf r = fma_vf(k, vf_of(-0.693145752f), x);
  r = fma_vf(k, vf_of(-1.42860677e-6f), r);
  vf p = vf_of(1.98756912e-4f);
  p = fma_vf(p, r, vf_of(1.39819994e-3f));
  p = fma_vf(p, r, vf_of(8.33345205e-3f));
  p = fma_vf(p, r, vf_of(4.16657962e-2f));
  p = fma_vf(p, r, vf_of(1.66666657e-1f));
  p = fma_vf(p, r, vf_of(5.00000012e-1f));
  return fma_vf(p, r * r, r + vf_of(1.0f));
}

/* e^x of every lane; below -87 the result is 0, above 88 infinity. */
static inline vf exp_vf(vf x) {
  const vf bounded = min_vf(max_vf(x, vf_of(-87.33654f)), vf_of(88.7f));
  const vf shifted = bounded * vf_of(1.44269504f) + vf_of(12582912.0f); /* 1.5 * 2^23: the sum rounds to a whole number */
  const vf k = shifted - vf_of(12582912.0f);
  const vf p = exp_over_power(bounded, k);
  /* 2^k in two steps: k = 128 has no float32 of its own */
  const vi whole = __builtin_convertvector(k, vi), half = whole >> 1;
  const vf scaled = p * (vf)((half + 127) << 23) * (vf)((whole - half + 127) << 23);
  const vf low = (vf)((vi)scaled & (x >= vf_of(-87.33654f)));
  const vi large = x > vf_of(88.7f), nan = x != x;
  return (vf)(((vi)low & ~large & ~nan) | (large & 0x7f800000) | (nan & (vi)x));
}
