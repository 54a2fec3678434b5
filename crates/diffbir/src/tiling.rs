//! In which tiles each part of the pipeline works (reference 2.9, 3.2 to 3.4).

use crate::Error;
use crate::geometry::SHORT_SIDE_PX;
use diffbir_imaging::tiles::{VaeTile, band_rows, vae_tiles};

/// How a part cuts what it works on, `T` being what it has to know of a tile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut<T> {
    /// Whole up to a size that takes moderate memory, in tiles above.
    #[default]
    Auto,
    /// As [`Cut::Auto`], but in tiles of this side, in pixels, above that size.
    AtMost(usize),
    /// Whole at any size.
    Whole,
    /// In these tiles, but whole what is smaller than one of them in any direction.
    Tiles(T),
}

/// Overlapping tiles that are blended, in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sliding {
    /// Side of a tile.
    pub tile_px: usize,
    /// Step from one to the next.
    pub stride_px: usize,
}

/// How what the autoencoder works on in parts becomes one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Joining {
    /// In bands, each with as many pixels as a tile or more: what the whole gives.
    #[default]
    Exact,
    /// In the reference's tiles: attention ends with a tile, and the statistics of norms are about those of the whole.
    Pooled,
    /// In the same tiles, one after the other from start to end, which takes the least memory: statistics are those of the
    /// picture made small (the reference's fast mode, which it never uses).
    Estimated {
        /// Pools them behind the encoder's first halving, against shifts of colour, with more memory.
        colour_fix: bool,
    },
}

/// In what the autoencoder works.
pub(crate) enum Pieces {
    Whole,
    /// Of so many rows.
    Bands(usize),
    /// And their side.
    Tiles(Vec<VaeTile>, usize),
}

/// How each part works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tiling {
    /// Stage 1.
    pub cleaner: Cut<Sliding>,
    /// The autoencoder's encoder; the side of a tile in pixels.
    pub encoder: Cut<usize>,
    /// The autoencoder's decoder; the side of a tile in pixels.
    pub decoder: Cut<usize>,
    /// Both of them, where they do not work whole.
    pub joining: Joining,
    /// UNet and control branch.
    pub denoiser: Cut<Sliding>,
}

/// Side of a tile of the autoencoder in pixels where nothing else is asked for, and the side of a picture above which there are
/// tiles.
const VAE_TILE_PX: usize = 512;

/// What is read around a tile of the autoencoder, as the reference does.
const ENCODER_PAD_PX: usize = 32;
const DECODER_PAD_CELLS: usize = 11;

impl Tiling {
    /// As the reference works where no tiles are asked for.
    pub const WHOLE: Self = Self {
        cleaner: Cut::Whole,
        encoder: Cut::Whole,
        decoder: Cut::Whole,
        joining: Joining::Exact,
        denoiser: Cut::Whole,
    };

    /// In what the encoder, or the decoder, works on `height` by `width` pixels, or latent cells of `cell_px` pixels.
    pub(crate) fn of_autoencoder(
        &self,
        decodes: bool,
        (height, width): (usize, usize),
        cell_px: usize,
    ) -> Pieces {
        let (cut, unit_px, pad) = match decodes {
            true => (self.decoder, cell_px, DECODER_PAD_CELLS),
            false => (self.encoder, 1, ENCODER_PAD_PX),
        };
        let tile = match cut {
            Cut::Auto => VAE_TILE_PX / unit_px,
            Cut::AtMost(tile_px) => tile_px.min(VAE_TILE_PX) / unit_px,
            Cut::Tiles(tile_px) if height.min(width) * unit_px >= tile_px => tile_px / unit_px,
            Cut::Whole | Cut::Tiles(_) => return Pieces::Whole,
        };
        if self.joining == Joining::Exact {
            let rows = band_rows(width * unit_px, tile * unit_px);
            // Of a single band, or one and a little, the whole takes no more memory.
            return if 2 * height * unit_px > 3 * rows { Pieces::Bands(rows) } else { Pieces::Whole };
        }
        let tiles = vae_tiles(height, width, tile, pad);
        if tiles.len() == 1 { Pieces::Whole } else { Pieces::Tiles(tiles, tile) }
    }

    /// The shorter side that the article's networks get at least, in pixels: what fills one tile.
    pub(crate) fn least_px(&self) -> usize {
        match self.denoiser {
            Cut::Tiles(Sliding { tile_px, .. }) => tile_px,
            Cut::Auto | Cut::AtMost(_) | Cut::Whole => SHORT_SIDE_PX,
        }
    }

    /// Refuses tiles that the networks cannot take: sides of stage 1's must be multiples of `cleaner_px`,
    /// the autoencoder's of `cell_px` (one latent cell), the denoiser's of `denoiser_px`.
    pub(crate) fn check(&self, cleaner_px: usize, cell_px: usize, denoiser_px: usize) -> Result<(), Error> {
        let side = |part: &str, tile_px: usize, multiple_px: usize| {
            if tile_px > 0 && tile_px.is_multiple_of(multiple_px) {
                return Ok(());
            }
            Err(Error::Option(format!(
                "tiles of {tile_px} px do not fit {part}: their side must be a multiple of {multiple_px}"
            )))
        };
        let sliding = |part: &str, cut: Cut<Sliding>, multiple_px: usize, step_px: usize| {
            let Cut::Tiles(Sliding { tile_px, stride_px }) = cut else { return Ok(()) };
            side(part, tile_px, multiple_px)?;
            if stride_px == 0 || stride_px > tile_px || !stride_px.is_multiple_of(step_px) {
                return Err(Error::Option(format!(
                    "a stride of {stride_px} px does not fit {part}: it must be a multiple of {step_px} and \
                     at most the tile's {tile_px}"
                )));
            }
            Ok(())
        };
        sliding("stage 1", self.cleaner, cleaner_px, 1)?;
        sliding("the denoiser", self.denoiser, denoiser_px, cell_px)?;
        for (part, cut) in [("the encoder", self.encoder), ("the decoder", self.decoder)] {
            if let Cut::Tiles(tile_px) = cut {
                side(part, tile_px, cell_px)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_that_do_not_fit_say_why() {
        let tiles = |tile_px, stride_px| Cut::Tiles(Sliding { tile_px, stride_px });
        let refused = |tiling: Tiling| tiling.check(64, 8, 64).unwrap_err().to_string();
        assert!(Tiling::default().check(64, 8, 64).is_ok() && Tiling::WHOLE.check(64, 8, 64).is_ok());
        assert!(Tiling { cleaner: tiles(512, 100), ..Tiling::default() }.check(64, 8, 64).is_ok());
        let said = refused(Tiling { cleaner: tiles(500, 250), ..Tiling::default() });
        assert!(said.contains("stage 1") && said.contains("500") && said.contains("64"), "{said}");
        assert!(refused(Tiling { denoiser: tiles(512, 0), ..Tiling::default() }).contains("stride of 0"));
        assert!(refused(Tiling { denoiser: tiles(512, 100), ..Tiling::default() }).contains("multiple of 8"));
        assert!(refused(Tiling { decoder: Cut::Tiles(100), ..Tiling::default() }).contains("the decoder"));
        assert!(refused(Tiling { encoder: Cut::Tiles(0), ..Tiling::default() }).contains("the encoder"));
    }
}
