// Elements and values: f32, f16 and bf16 by their bits, so that every platform agrees.
#pragma once
#include "job.cuh"

__device__ static inline u32 bits_of(float value) { return __float_as_uint(value); }

__device__ static inline bool is_finite(u32 bits) { return (bits & 0x7f800000u) != 0x7f800000u; }

// The f32 of an f16's bits, exactly.
__device__ static inline float from_f16(u32 half) {
    u32 sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 0x3ffu;
    if (exponent == 31u) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0u) return __uint_as_float(sign | (exponent + 112u) << 23 | mantissa << 13);
    return __uint_as_float(sign | bits_of(__fmul_rn((float)mantissa, 5.9604644775390625e-8f)));
}

// Nearest f16 of a finite value, ties to even, saturated.
__device__ static inline u32 to_f16(float value) {
    u32 bits = bits_of(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    // Halfway from the largest f16 to what would follow it.
    if (magnitude >= 0x477ff000u) return sign | 0x7bffu;
    if (magnitude < 0x38800000u) {
        // Subnormal: adding 0.5 leaves multiples of 2^-24 in the low bits.
        float shifted = __fadd_rn(__uint_as_float(magnitude), 0.5f);
        return sign | (bits_of(shifted) - 0x3f000000u);
    }
    u32 rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return sign | (rounded - 0x38000000u) >> 13;
}

// Nearest bf16 of a finite value, ties to even, saturated.
__device__ static inline u32 to_bf16(float value) {
    u32 bits = bits_of(value), rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (rounded & 0x7fffu) == 0x7f80u ? rounded - 1u : rounded;
}

// An element as f32.
__device__ static inline float load_element(const void* elements, u32 dtype, u32 index) {
    if (dtype == F32) return ((const float*)elements)[index];
    u32 half = ((const u16*)elements)[index];
    return dtype == F16 ? from_f16(half) : __uint_as_float(half << 16);
}

// The bits of a symbol's value in the element's type.
__device__ static inline u32 value_bits(const Map& map, u32 symbol, u32 dtype) {
    float value = __fmul_rn((float)((i32)symbol - map.zero), map.step);
    if (!is_finite(bits_of(value))) value = value > 0.0f ? 3.40282346638528859812e38f : -3.40282346638528859812e38f;
    if (dtype == F32) return bits_of(value);
    return dtype == F16 ? to_f16(value) : to_bf16(value);
}

__device__ static inline void store_bits(void* elements, u32 dtype, u32 index, u32 bits) {
    // One multiplication and addition for either type.
    void* at = (u8*)elements + (u64)index * (dtype == F32 ? 4u : 2u);
    if (dtype == F32) *(u32*)at = bits; else *(u16*)at = (u16)bits;
}

struct QuantizerNumbers {
    float reciprocal;
    float zero;
    float top;
};

__device__ static inline QuantizerNumbers quantizer(float step, i32 zero, u32 alphabet) {
    return QuantizerNumbers{__fdiv_rn(1.0f, step), (float)zero, (float)(alphabet - 1u)};
}

__device__ static inline u32 quantize(const QuantizerNumbers& q, float value) {
    float scaled = __fadd_rn(rintf(__fmul_rn(value, q.reciprocal)), q.zero);
    return (u32)fminf(fmaxf(scaled, 0.0f), q.top);
}
