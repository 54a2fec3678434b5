//! What a photograph takes on its way to the networks, and what its results take on theirs into a file, as
//! `diffbir_imaging` makes them: more than three bytes a pixel where it has opacity, 16 bits, or a profile.

use super::ledger::Ledger;
use super::pictures::{Size, raster};
use diffbir_imaging::Outline;

/// The photograph in sRGB at a size, as floats, which are left.
pub(super) fn seen(photo: &Outline, to: Size) -> Ledger {
    let (width, height) = photo.size();
    let copy = if photo.is_converted { 3 * photo.sample_bytes() * photo.pixels() } else { 0 };
    // Grey becomes three channels at the end.
    let floats = |size: Size| 4 * photo.channels * size.0 * size.1;
    let mut held = Ledger::default();
    held.take(copy);
    if photo.is_deep {
        held.turn(copy, floats(photo.size()));
        if to != photo.size() {
            let across = floats((to.0, height));
            held.take(across);
            held.turn(across, floats(to));
            held.free(floats(photo.size()));
        }
    } else {
        let across = if to.0 == width { 0 } else { photo.channels * to.0 * height };
        let bytes = photo.channels * to.0 * to.1;
        held.take(across);
        held.turn(across, bytes);
        held.take(floats(to));
        held.free(bytes + copy);
    }
    if photo.channels == 1 {
        held.turn(floats(to), raster(to));
    }
    held
}

/// A mask from its file to how light it is, as floats, which are left.
pub(super) fn mask(mask: &Outline) -> Ledger {
    let (picture, lightness) = (mask.bytes(), 4 * mask.pixels());
    let mut held = Ledger::default();
    held.take(picture);
    held.need(mask.decoding);
    held.need(seen(mask, mask.size()).most().max(raster(mask.size()) + lightness));
    held.turn(picture, lightness);
    held
}

/// Its opacity at a size, which is left, if it has any.
pub(super) fn opacity(photo: &Outline, to: Size) -> Ledger {
    let mut held = Ledger::default();
    if !photo.has_alpha {
        return held;
    }
    let across = to.0 * photo.height_px;
    let floats = raster(to) / 3;
    match photo.is_deep {
        true => held.need(4 * photo.pixels() + 4 * across + floats),
        false => held.need(across + to.0 * to.1 + floats),
    }
    held.take(floats);
    held
}

/// A picture as floats at another size, across first; it is left beside the new one.
pub(super) fn resized(held: &mut Ledger, from: Size, to: Size) {
    let across = raster((to.0, from.1));
    held.take(across);
    held.take(raster(to));
    held.free(across);
}

/// A result as the bytes of a file: in its own colours, in whole numbers, in the order of the format, and compressed.
pub(super) fn encoded(held: &mut Ledger, photo: &Outline, to: Size) {
    let (pixels, sample) = (to.0 * to.1, photo.sample_bytes());
    let colours = photo.channels * sample * pixels;
    let alpha = if photo.has_alpha { sample * pixels } else { 0 };
    if photo.is_converted {
        // Numbers of 16 bits, of both spaces, and floats; then what sRGB cuts off of the photograph.
        held.need(24 * pixels);
        held.take(raster(to));
        held.need(24 * photo.pixels());
        held.need(raster(photo.size()) + raster((to.0, photo.height_px)) + raster(to));
        held.turn(raster(to), colours);
    } else {
        let before = if photo.channels == 1 { 3 * sample * pixels } else { 0 };
        held.take(before);
        held.turn(before, colours);
    }
    held.take(alpha);
    let both = colours + alpha;
    // Two bytes of a sample change places, in a copy, and cannot be compressed as well.
    held.need(if photo.is_deep { 7 * both / 2 } else { 2 * both });
    held.free(both);
}
