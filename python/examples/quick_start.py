"""Quick start: a tensor into a frame and back, a plan, a profile. Needs NumPy alone."""

from __future__ import annotations

import narrows
import numpy
from numpy.typing import NDArray


def features(seed: int) -> NDArray[numpy.float32]:
    """Something like what a network's head makes of an image: smooth, rectified, 64 channels of 28 x 28."""
    rng = numpy.random.default_rng(seed)
    smooth = rng.normal(size=(64, 28, 28)).cumsum(axis=2).cumsum(axis=1)
    values: NDArray[numpy.float32] = numpy.maximum(smooth - smooth.mean(), 0).astype(numpy.float32)
    return values


def main() -> None:
    x = features(0)

    frame = narrows.encode(x, bits=4)
    restored = narrows.decode(frame)
    step = (x.max() - x.min()) / 15
    print(f"{x.nbytes:,} bytes -> {len(frame):,} bytes, {8 * len(frame) / x.size:.2f} bits an element")
    print(f"largest error {abs(restored - x).max() / step:.2f} of a step")
    print(narrows.peek(frame))

    print("\nwhat other settings would cost")
    for bits in (2, 3, 4, 6, 8):
        plan, clipped = narrows.plan(x, bits), narrows.plan(x, bits, clip=99.9)
        print(f"  {bits} bits: {plan.bytes:8,.0f} bytes, {clipped.bytes:8,.0f} with the range clipped at 99.9 %")

    profile = narrows.Profile.calibrate([features(seed) for seed in range(1, 9)], bits=4)
    frame = narrows.encode(x, profile=profile)
    print(f"\nwith {profile!r} at both ends: {len(frame):,} bytes")
    assert narrows.decode(frame, profiles=[profile]).shape == x.shape

    damaged = bytearray(frame)
    damaged[len(damaged) // 2] ^= 1
    try:
        narrows.decode(damaged)
    except narrows.ChecksumError as error:
        print(f"a flipped bit is noticed: {error}")


if __name__ == "__main__":
    main()
