//! Contact sheets: versions of a picture side by side, and beneath them where they have the most detail.

use diffbir_imaging::resize::{self, Filter};
use diffbir_metrics::Picture;
use font8x8::{BASIC_FONTS, UnicodeFonts};

/// Width that pictures are shown in: larger ones are reduced, smaller ones enlarged by whole numbers.
const SHOWN_PX: usize = 512;
/// Room that one has at least.
const LEAST_PX: usize = 160;
/// Height above which they are reduced, however narrow they are.
const MOST_HIGH_PX: usize = 4 * SHOWN_PX;
/// How much the crops are enlarged.
const ZOOM: usize = 2;
pub const GAP_PX: usize = 12;
const GLYPH_PX: usize = 8;
pub const LINE_PX: usize = 2 * GLYPH_PX + 6;
const GROUND: [u8; 3] = [32; 3];
/// In the place of a picture that cannot be had.
const EMPTY: [u8; 3] = [56; 3];
pub const INK: [u8; 3] = [235; 3];
const FRAME: [u8; 3] = [255, 205, 40];
/// One of the pictures, or why it cannot be had.
pub struct Panel<'a> {
    /// What it is called.
    pub name: String,
    /// What stands below its name.
    pub numbers: String,
    /// Of the size of the others.
    pub picture: Result<&'a Picture, String>,
}

/// Part of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Region {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// A sheet of rows of pictures that are all of the size of `reference`, beneath each the part of it where that has most
/// detail.
pub fn draw(name: &str, rows: &[&[Panel]], reference: &Picture) -> Picture {
    let region = most_detailed(reference, shown(reference.width_px, reference.height_px).0);
    let rows: Vec<Picture> = rows.iter().map(|panels| row(panels, region, reference)).collect();
    let width = rows.iter().map(|row| row.width_px).max().unwrap_or(0);
    let top = GAP_PX + LINE_PX;
    let height = top + rows.iter().map(|row| row.height_px).sum::<usize>() + GAP_PX;
    let mut sheet = Picture { width_px: width, height_px: height, rgb: GROUND.repeat(width * height) };
    write(&mut sheet, name, (GAP_PX, GAP_PX), width.saturating_sub(2 * GAP_PX));
    let mut y = top;
    for row in &rows {
        paste(&mut sheet, row, (0, y));
        y += row.height_px;
    }
    sheet
}

/// Bytes of a sheet with so many panels in each row, of pictures of this size that can all be had.
pub fn bytes(panels: &[usize], of: (usize, usize)) -> usize {
    let (shown_width, shown_height) = shown(of.0, of.1);
    let panel_px = shown_width.max(LEAST_PX);
    let region = region_size(of, shown_width);
    let row = 2 * GAP_PX + 2 * LINE_PX + shown_height + (region.1 * panel_px).div_ceil(region.0);
    let width = GAP_PX + panels.iter().max().unwrap_or(&0) * (panel_px + GAP_PX);
    3 * width * (2 * GAP_PX + LINE_PX + panels.len() * row)
}

/// Pictures side by side, their crops beneath them.
fn row(panels: &[Panel], region: Region, reference: &Picture) -> Picture {
    let (width, height) = shown(reference.width_px, reference.height_px);
    // A narrow picture has room beside it, for what is written and for its crop.
    let panel_px = width.max(LEAST_PX);
    let crop = (panel_px, (region.height * panel_px).div_ceil(region.width));
    let top = GAP_PX;
    let (below_names, column) = (top + 2 * LINE_PX, panel_px + GAP_PX);
    let crops = below_names + height + GAP_PX;
    let reasons: Vec<Vec<String>> =
        panels.iter().map(|panel| wrapped(panel, panel_px - 2 * GAP_PX)).collect();
    let most_lines = reasons.iter().map(Vec::len).max().unwrap_or(0);
    let bottom = (crops + crop.1).max(below_names + most_lines * LINE_PX + 2 * GAP_PX);
    let size = (GAP_PX + panels.len() * column, bottom);
    let mut sheet = Picture { width_px: size.0, height_px: size.1, rgb: GROUND.repeat(size.0 * size.1) };
    for (index, (panel, reason)) in panels.iter().zip(&reasons).enumerate() {
        let x = GAP_PX + index * column;
        write(&mut sheet, &panel.name, (x, top), panel_px);
        write(&mut sheet, &panel.numbers, (x, top + LINE_PX), panel_px);
        let Ok(picture) = panel.picture else {
            let empty =
                Picture { width_px: panel_px, height_px: height, rgb: EMPTY.repeat(panel_px * height) };
            paste(&mut sheet, &empty, (x, below_names));
            for (line, text) in reason.iter().enumerate() {
                let place = (x + GAP_PX, below_names + GAP_PX + line * LINE_PX);
                write(&mut sheet, text, place, panel_px - 2 * GAP_PX);
            }
            continue;
        };
        paste(&mut sheet, &scaled(picture, (width, height)), (x, below_names));
        frame(
            &mut sheet,
            region,
            (reference.width_px, reference.height_px),
            (width, height),
            (x, below_names),
        );
        paste(&mut sheet, &nearest(picture, region, crop), (x, crops));
    }
    sheet
}

/// A picture at a size, as it is, pixel by pixel.
pub fn magnified(picture: &Picture, size: (usize, usize)) -> Picture {
    nearest(picture, whole(picture), size)
}

/// A picture's size in words.
pub fn of_size(picture: &Picture) -> String {
    format!("{} x {}", picture.width_px, picture.height_px)
}

/// Why there is no picture, in lines of large letters that fit into `room` pixels.
fn wrapped(panel: &Panel, room: usize) -> Vec<String> {
    let letters = (room / (2 * GLYPH_PX)).max(1);
    let mut lines: Vec<String> = Vec::new();
    for word in panel.picture.as_ref().err().into_iter().flat_map(|reason| reason.split_whitespace()) {
        let word: Vec<char> = word.chars().collect();
        // A path may be longer than a line.
        for part in word.chunks(letters) {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + part.len() <= letters => {
                    line.push(' ');
                    line.extend(part);
                }
                _ => lines.push(part.iter().collect()),
            }
        }
    }
    lines
}

/// The size that a picture is shown in. Narrow ones are not enlarged beyond what can be looked at.
fn shown(width: usize, height: usize) -> (usize, usize) {
    if width > SHOWN_PX || height > MOST_HIGH_PX {
        let of = (SHOWN_PX as f64 / width as f64).min(MOST_HIGH_PX as f64 / height as f64);
        let reduced = |side: usize| ((side as f64 * of) as usize).max(1);
        (reduced(width), reduced(height))
    } else {
        let times = (SHOWN_PX / width).min(MOST_HIGH_PX / height).max(1);
        (width * times, height * times)
    }
}

fn whole(picture: &Picture) -> Region {
    Region { x: 0, y: 0, width: picture.width_px, height: picture.height_px }
}

fn scaled(picture: &Picture, to: (usize, usize)) -> Picture {
    if to.0 >= picture.width_px {
        return nearest(picture, whole(picture), to);
    }
    let from = (picture.width_px, picture.height_px);
    Picture { width_px: to.0, height_px: to.1, rgb: resize::pil(&picture.rgb, from, 3, to, Filter::Lanczos) }
}

/// A region at another size, as it is, pixel by pixel.
fn nearest(picture: &Picture, region: Region, (width_px, height_px): (usize, usize)) -> Picture {
    let mut rgb = Vec::with_capacity(3 * width_px * height_px);
    for y in 0..height_px {
        let row = (region.y + y * region.height / height_px) * picture.width_px + region.x;
        for x in 0..width_px {
            let at = 3 * (row + x * region.width / width_px);
            rgb.extend_from_slice(&picture.rgb[at..at + 3]);
        }
    }
    Picture { width_px, height_px, rgb }
}

/// The size of the region that is enlarged, of a picture that is shown `shown_px` wide.
fn region_size((columns, rows): (usize, usize), shown_px: usize) -> (usize, usize) {
    let width = (shown_px.min(columns) / ZOOM).max(1);
    (width, (width * 3 / 4).clamp(1, rows))
}

/// Where neighbouring pixels differ most, of the size that fills `shown_px` when it is shown [`ZOOM`] times as large as
/// the picture, or, where that is enlarged itself, as in the picture above.
fn most_detailed(picture: &Picture, shown_px: usize) -> Region {
    let (columns, rows) = (picture.width_px, picture.height_px);
    let (width, height) = region_size((columns, rows), shown_px);
    let green = |x: usize, y: usize| u64::from(picture.rgb[3 * (y * columns + x) + 1]);
    // Sums of differences over the rectangle from the upper left corner.
    let mut sums = vec![0; (columns + 1) * (rows + 1)];
    for y in 0..rows {
        let mut row = 0;
        for x in 0..columns {
            let here = green(x, y);
            row += here.abs_diff(green((x + 1).min(columns - 1), y))
                + here.abs_diff(green(x, (y + 1).min(rows - 1)));
            sums[(y + 1) * (columns + 1) + x + 1] = sums[y * (columns + 1) + x + 1] + row;
        }
    }
    let sum = |x: usize, y: usize| sums[y * (columns + 1) + x];
    let detail =
        |x: usize, y: usize| sum(x + width, y + height) + sum(x, y) - sum(x + width, y) - sum(x, y + height);
    let places = (0..=rows - height).flat_map(|y| (0..=columns - width).map(move |x| (x, y)));
    let (x, y) = places.max_by_key(|&(x, y)| detail(x, y)).unwrap_or((0, 0));
    Region { x, y, width, height }
}

fn paste(sheet: &mut Picture, picture: &Picture, (x, y): (usize, usize)) {
    for (row, line) in picture.rgb.chunks_exact(3 * picture.width_px).enumerate() {
        let at = 3 * ((y + row) * sheet.width_px + x);
        sheet.rgb[at..at + line.len()].copy_from_slice(line);
    }
}

/// Marks a region of a picture of size `of` that is shown in size `shown` at `place`.
fn frame(
    sheet: &mut Picture,
    region: Region,
    of: (usize, usize),
    shown: (usize, usize),
    place: (usize, usize),
) {
    let across = |x: usize| x * shown.0 / of.0;
    let down = |y: usize| y * shown.1 / of.1;
    let (left, right) = (across(region.x), across(region.x + region.width).max(1) - 1);
    let (top, bottom) = (down(region.y), down(region.y + region.height).max(1) - 1);
    for y in top..=bottom {
        for x in left..=right {
            if x < left + 2 || x + 2 > right || y < top + 2 || y + 2 > bottom {
                dot(sheet, (place.0 + x, place.1 + y), FRAME);
            }
        }
    }
}

fn dot(sheet: &mut Picture, (x, y): (usize, usize), colour: [u8; 3]) {
    let at = 3 * (y * sheet.width_px + x);
    sheet.rgb[at..at + 3].copy_from_slice(&colour);
}

/// Writes what fits into `room` pixels, in large letters if all of it does.
fn write(sheet: &mut Picture, text: &str, (left, top): (usize, usize), room: usize) {
    let times = if text.chars().count() * 2 * GLYPH_PX <= room { 2 } else { 1 };
    for (index, letter) in text.chars().take(room / (times * GLYPH_PX)).enumerate() {
        let glyph = BASIC_FONTS.get(letter).or_else(|| BASIC_FONTS.get('?')).unwrap_or_default();
        for y in 0..GLYPH_PX * times {
            for x in 0..GLYPH_PX * times {
                if glyph[y / times] >> (x / times) & 1 == 1 {
                    dot(sheet, (left + index * GLYPH_PX * times + x, top + y), INK);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(width_px: usize, height_px: usize) -> Picture {
        Picture { width_px, height_px, rgb: vec![90; 3 * width_px * height_px] }
    }

    #[test]
    fn the_region_is_where_the_detail_is() {
        let mut picture = flat(600, 400);
        for i in 0..40 {
            picture.rgb[3 * ((300 + i) * 600 + 500 + i % 7) + 1] = 255;
        }
        let Region { x, y, width, height } = most_detailed(&picture, 512);
        assert_eq!((width, height), (256, 192));
        assert!(x <= 500 && x + width >= 507 && y <= 300 && y + height >= 340, "{x} {y}");
        // Crops of pictures that are enlarged themselves are enlarged further.
        for width in [512, 300, 256, 200, 50, 2] {
            assert_eq!(most_detailed(&flat(width, 40), shown(width, 40).0).width, width / 2);
        }
    }

    #[test]
    fn the_bytes_of_a_sheet_are_known_before() {
        for (width, height) in [(600, 400), (40, 300), (300, 7), (100, 3000)] {
            let picture = flat(width, height);
            let panels = |count| -> Vec<Panel> {
                let panel = |_| Panel { name: String::new(), numbers: String::new(), picture: Ok(&picture) };
                (0..count).map(panel).collect()
            };
            let drawn = draw("", &[&panels(2), &panels(3)], &picture);
            assert_eq!(bytes(&[2, 3], (width, height)), drawn.rgb.len(), "{width} x {height}");
        }
    }

    #[test]
    fn reasons_are_wrapped_within_their_room() {
        let panel = |reason: &str| Panel {
            name: String::new(),
            numbers: String::new(),
            picture: Err(reason.to_string()),
        };
        assert_eq!(wrapped(&panel("ab cd abcdefgh i"), 5 * 16), ["ab cd", "abcde", "fgh i"]);
        assert!(wrapped(&Panel { picture: Ok(&flat(1, 1)), ..panel("") }, 80).is_empty());
    }

    #[test]
    fn any_size_gives_a_sheet() {
        for (width, height) in [(1, 1), (3, 700), (700, 3), (1, 900), (511, 20), (1030, 514)] {
            let picture = flat(width, height);
            let panel =
                |name: &str| Panel { name: name.into(), numbers: "PSNR 12.00".into(), picture: Ok(&picture) };
            let sheet = draw(
                "a/name",
                &[&[panel("one"), panel("a name that is far too long for it — Übung")]],
                &picture,
            );
            let below = draw("a/name", &[&[panel("one")], &[panel("two")]], &picture);
            assert!(below.width_px < sheet.width_px && below.height_px > sheet.height_px);
            assert_eq!(sheet.rgb.len(), 3 * sheet.width_px * sheet.height_px);
            assert!(sheet.rgb.contains(&INK[0]) && sheet.rgb.chunks(3).any(|pixel| pixel == FRAME));
        }
    }
}
