"""Multiplications of AutoencoderKL's encoder and decoder together, in bands (the result of the whole) and in the reference's tiles.

    python scripts/vae_operations.py

Counted from the sizes of the network, for pictures of 4 : 3 in tiles of 512 pixels; nothing is run. Tiles read what lies around
them again, attention in bands compares each latent cell with each. Needs nothing beside Python.
"""

CHANNELS, MULTIPLIERS, BLOCKS, LATENT = 128, [1, 2, 4, 4], 2, 4
CELL, TILE, PAD_ENCODER, PAD_DECODER = 8, 512, 32, 11


def block(before, after):
    """Of a residual block, a pixel."""
    return 9 * (before * after + after * after) + (before * after if before != after else 0)


def attention(cells):
    """Scores, and sums by scores, of all cells."""
    return 2 * CHANNELS * MULTIPLIERS[-1] * cells**2


def convolutions():
    """Of the encoder and of the decoder, a pixel of the picture."""
    deepest = CHANNELS * MULTIPLIERS[-1]
    middle = (2 * block(deepest, deepest) + 4 * deepest**2) / CELL**2
    encoder, decoder = 27 * CHANNELS + middle, middle + 27 * CHANNELS
    width, share = CHANNELS, 1.0
    for level, multiplier in enumerate(MULTIPLIERS):
        for _ in range(BLOCKS):
            encoder += share * block(width, CHANNELS * multiplier)
            width = CHANNELS * multiplier
        if level + 1 < len(MULTIPLIERS):
            share /= 4
            encoder += share * 9 * width**2
    for level, multiplier in reversed(list(enumerate(MULTIPLIERS))):
        for _ in range(BLOCKS + 1):
            decoder += share * block(width, CHANNELS * multiplier)
            width = CHANNELS * multiplier
        if level:
            # At the small size: four kernels of two by two in place of one of three by three.
            decoder += share * 16 * width**2
            share *= 4
    return encoder, decoder


def spans(length, tile, pad):
    """Lengths of tiles with what they read around them, as `crates/imaging/src/tiles.rs` cuts them."""
    count = max(1, -(-(length - 2 * pad) // tile))
    side = -(-(length - 2 * pad) // count)
    # A power of two that divides it, without going above the tile.
    divides = next(power for power in (32, 16, 8, 4, 2, 1) if -(-side // power) * power <= tile)
    side = -(-side // divides) * divides
    starts = [pad + index * side for index in range(count)]
    return [min(start + side + pad, length) - max(start - pad, 0) for start in starts]


def main():
    encoder, decoder = convolutions()
    print("| megapixels | bands: convolutions | attention | tiles: all | tiles over bands |\n|---|---|---|---|---|")
    for width in (1024, 2048, 3072, 3584, 4000, 4608, 5664):
        width, height = width // 64 * 64, width * 3 // 4 // 64 * 64
        pixels = width * height
        bands = (encoder + decoder) * pixels
        whole = 2 * attention(pixels // CELL**2)
        tiles = 0
        for part, unit, pad in ((encoder, 1, PAD_ENCODER), (decoder, CELL, PAD_DECODER)):
            for tall in spans(height // unit, TILE // unit, pad):
                for wide in spans(width // unit, TILE // unit, pad):
                    own = tall * wide * unit**2
                    tiles += part * own + attention(own / CELL**2)
        row = [f"{pixels / 1e6:.1f}"] + [f"{count / 1e12:.1f} T" for count in (bands, whole, tiles)]
        print(f"| {' | '.join(row)} | {tiles / (bands + whole):.2f} |")


main()
