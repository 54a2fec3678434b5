//! What all results of a picture give together: a contact sheet, and a map of how much samples differ.

use super::sweep::Setting;
use crate::args::Restore;
use crate::outputs::{self, Job};
use crate::progress::Event;
use crate::sheet::{self, Panel, draw, magnified, of_size};
use anyhow::{Result, bail};
use diffbir_imaging::{Format, Raster, encode_rgb};
use diffbir_metrics::{Picture, deviations, local_deviation};

/// Pictures a row of a sheet.
const COLUMNS: usize = 6;
/// The deviation, in levels of 255, from which on the map is white.
const MOST_LEVELS: f64 = 32.0;

/// What is wanted.
#[derive(Clone, Copy)]
pub struct Wanted {
    sheet: bool,
    /// A map of how much samples differ.
    pub stability: bool,
}

/// The pictures on the way to it.
#[derive(Default)]
pub struct Gathered {
    clean: Option<Picture>,
    results: Vec<Gained>,
}

struct Gained {
    setting: usize,
    seed: u64,
    picture: Picture,
}

impl Wanted {
    /// Nothing where neither is; refuses to compare one sample.
    pub fn new(arguments: &Restore) -> Result<Option<Self>> {
        let wanted =
            Self { sheet: arguments.sheet || !arguments.sweep.is_empty(), stability: arguments.stability };
        if wanted.stability && arguments.samples < 2 {
            bail!("--stability: compares samples: give --samples 2 or more");
        }
        Ok((wanted.sheet || wanted.stability).then_some(wanted))
    }

    /// Behind the stems of its files' names.
    pub fn names(self, settings: &[Setting]) -> Vec<String> {
        let maps = settings.iter().map(|setting| format!("{}_stability", setting.suffix));
        let sheet = self.sheet.then(|| "_sheet".to_string());
        sheet.into_iter().chain(maps.filter(|_| self.stability)).collect()
    }

    /// Bytes that making it takes beside `results` pictures, for a photograph and results of these sizes.
    pub fn bytes(
        self,
        (results, columns): (usize, Option<usize>),
        photo: (usize, usize),
        result: (usize, usize),
    ) -> usize {
        let [photo, pixels] = [photo, result].map(|(width, height)| width * height);
        // Deviations of all values and of all pixels.
        let stability = if self.stability { 32 * pixels } else { 0 };
        let sheet = if self.sheet {
            let panels = match columns {
                Some(columns) => [vec![2], chunks(results, columns)].concat(),
                None => chunks(results + 2, COLUMNS),
            };
            // The input, also magnified; sums of differences, or rows, sheet and file.
            3 * photo + 3 * pixels + (8 * pixels).max(3 * sheet::bytes(&panels, result))
        } else {
            0
        };
        12 * photo + stability.max(sheet)
    }

    /// Writes it, and tells of it.
    pub fn write(
        self,
        job: &Job,
        gathered: &Gathered,
        (input, settings, columns): (&Raster, &[Setting], Option<usize>),
        tell: &mut dyn FnMut(&Event),
    ) -> Result<()> {
        let mut files = job.together.iter().map(Option::as_deref);
        if self.sheet
            && let Some(file) = files.next().flatten()
        {
            outputs::write(file, &png(gathered.sheet(job, &Picture::from(input), settings, columns))?)?;
            tell(&Event::Together { input: &job.input, output: file, stability: None });
        }
        for (index, file) in files.enumerate() {
            let own: Vec<&Picture> = gathered
                .results
                .iter()
                .filter(|result| result.setting == index)
                .map(|result| &result.picture)
                .collect();
            // Results of an earlier run are not compared.
            let Some(file) = file.filter(|_| own.len() > 1) else { continue };
            let (map, mean) = stability(&own)?;
            outputs::write(file, &map)?;
            tell(&Event::Together { input: &job.input, output: file, stability: Some(mean) });
        }
        Ok(())
    }
}

impl Gathered {
    /// Keeps the picture of stage 1.
    pub fn clean(&mut self, picture: &Raster) {
        self.clean = Some(picture.into());
    }

    /// Keeps a result.
    pub fn result(&mut self, picture: &Raster, setting: usize, seed: u64) {
        self.results.push(Gained { setting, seed, picture: picture.into() });
    }

    fn sheet(&self, job: &Job, input: &Picture, settings: &[Setting], columns: Option<usize>) -> Picture {
        let reference = self.results.first().map_or(input, |result| &result.picture);
        let whole = magnified(input, (reference.width_px, reference.height_px));
        let panel =
            |name: &str, numbers: String, picture| Panel { name: name.into(), numbers, picture: Ok(picture) };
        let mut first = vec![panel("input", of_size(input), &whole)];
        first.extend(self.clean.iter().map(|clean| panel("stage 1", String::new(), clean)));
        let results: Vec<Panel> = self
            .results
            .iter()
            .map(|result| {
                let seed = format!("seed {}", result.seed);
                match settings[result.setting].label.as_str() {
                    "" => panel(&seed, String::new(), &result.picture),
                    label => panel(label, seed, &result.picture),
                }
            })
            .collect();
        let name = job.input.file_name().unwrap_or_default().to_string_lossy();
        let rows: Vec<&[Panel]> = match columns {
            Some(columns) => std::iter::once(&first[..]).chain(results.chunks(columns)).collect(),
            None => {
                first.extend(results);
                first.chunks(COLUMNS).collect()
            }
        };
        draw(&name, &rows, reference)
    }
}

/// Sizes of the pieces that [`slice::chunks`] makes of so many.
fn chunks(count: usize, size: usize) -> Vec<usize> {
    (0..count.div_ceil(size)).map(|index| size.min(count - index * size)).collect()
}

/// Pictures side by side, where there are rows of one setting: the other one's values are beneath each other.
pub fn columns(arguments: &Restore) -> Option<usize> {
    match &arguments.sweep[..] {
        [_, .., last] => Some(last.count() * usize::from(arguments.samples)),
        _ => None,
    }
}

/// How much two samples or more differ: a map as PNG, and the mean (L-STD).
pub fn stability(samples: &[&Picture]) -> Result<(Vec<u8>, f64)> {
    let map = heat(samples[0], &deviations(samples)?);
    Ok((png(map)?, local_deviation(samples)?))
}

fn png(picture: Picture) -> Result<Vec<u8>> {
    Ok(encode_rgb((picture.width_px, picture.height_px), picture.rgb, Format::Png, None)?)
}

/// Deviations as colours: black where samples agree, then violet, orange, and white.
fn heat(of: &Picture, deviations: &[f64]) -> Picture {
    const COLOURS: [[f64; 3]; 4] = [[0.0; 3], [110.0, 20.0, 110.0], [250.0, 140.0, 10.0], [255.0; 3]];
    let rgb = deviations.iter().flat_map(|deviation| {
        let place = (deviation * 255.0 / MOST_LEVELS).min(1.0) * (COLOURS.len() - 1) as f64;
        let below = (place as usize).min(COLOURS.len() - 2);
        let share = place - below as f64;
        [0, 1, 2].map(|c| (COLOURS[below][c] * (1.0 - share) + COLOURS[below + 1][c] * share).round() as u8)
    });
    Picture { width_px: of.width_px, height_px: of.height_px, rgb: rgb.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_become_colours_that_grow_lighter() {
        let of = Picture { width_px: 4, height_px: 1, rgb: vec![0; 12] };
        let drawn = heat(&of, &[0.0, 32.0 / 255.0 / 3.0, 32.0 / 255.0, 1.0]);
        assert_eq!(drawn.rgb, [0, 0, 0, 110, 20, 110, 255, 255, 255, 255, 255, 255]);
    }
}
