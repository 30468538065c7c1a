// float16 as CUDA's header of this name has it: the storage type and its conversions, to nearest, ties to even.
#pragma once
#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half h) {
  const uint32_t sign = uint32_t(h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 0x3ffu;
  float value;
  if (exponent == 0) {  // zero and subnormals: units of 2^-24
    value = float(fraction) * 0x1p-24f;
    return sign ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline __half __float2half_rn(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {0x7fff};                      // NaN, as CUDA writes it
  if (bits >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};   // 65520 and above round to infinity
  if (bits < 0x38800000u) {                                     // below 2^-14: subnormal, the sum rounds it
    float small;
    std::memcpy(&small, &bits, sizeof small);
    small += 0.5f;  // the spacing here is 2^-24, that of float16's subnormals
    std::memcpy(&bits, &small, sizeof bits);
    return {uint16_t(sign | (bits - 0x3f000000u))};
  }
  bits += 0xfffu + (bits >> 13 & 1) - (112u << 23);
  return {uint16_t(sign | bits >> 13)};
}
