//! Pictures: decoded with hard limits, for their size and a smaller copy, and rid of what they say about
//! their author, such as the place. Which bytes are a picture, the bytes decide.

use std::io::Cursor;

use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder as _, ImageEncoder, ImageFormat, ImageReader, Limits};
use img_parts::ImageEXIF as _;
use img_parts::jpeg::{Jpeg, markers};
use img_parts::png::Png;
use img_parts::webp::WebP;

/// How many of the first bytes say what kind of picture it is.
pub const HEAD: usize = 32;
/// The most pixels: what a good phone takes.
const PIXELS: u64 = 64_000_000;
/// The longest side, in pixels.
const SIDE: u32 = 30_000;
/// The most memory of one picture, in bytes.
const MEMORY: u64 = 300_000_000;
/// The longest side of a thumbnail, in pixels, enough for a screen with two pixels to a point.
const THUMBNAIL: u32 = 720;
/// A picture of that size in bytes that is no larger than a thumbnail needs none.
const SMALL: usize = 200_000;
const QUALITY: u8 = 82;

/// A picture as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its bytes, without metadata except for the colour profile and the orientation.
    pub bytes: Bytes,
    /// Its type.
    pub media_type: &'static str,
    /// Its width as it is shown, in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// A smaller copy, unless it is small, and how its name ends.
    pub thumbnail: Option<(Bytes, &'static str)>,
}

/// The type of picture that begins like this.
fn format_of(head: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(head).ok()?;
    let known = [
        ImageFormat::Png,
        ImageFormat::Jpeg,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ];
    known.contains(&format).then_some(format)
}

/// Whether a file that begins like this may be a picture.
pub fn may_be(head: &[u8]) -> bool {
    format_of(head).is_some()
}

/// The type of a smaller copy, by how its name ends.
pub fn type_of(name: &str) -> &'static str {
    match name.ends_with(".png") {
        true => "image/png",
        false => "image/jpeg",
    }
}

/// The name of a picture of that type. It ends as such pictures do, since that decides what opens it once it
/// is saved.
pub fn name_as(name: &str, media_type: &str) -> String {
    let endings = ImageFormat::from_mime_type(media_type).map(ImageFormat::extensions_str);
    let Some(endings @ [usual, ..]) = endings else {
        return name.to_owned();
    };
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    let ending = ending.to_lowercase();
    match ImageFormat::from_extension(&ending) {
        _ if endings.contains(&&*ending) => name.to_owned(),
        Some(_) => format!("{stem}.{usual}"),
        None => format!("{name}.{usual}"),
    }
}

/// Decodes a picture; `None` if that is not possible within the limits. Takes a while, and memory.
pub fn decode(bytes: Bytes) -> Option<Kept> {
    let format = format_of(&bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(&bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE);
    limits.max_image_height = Some(SIDE);
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS || decoder.total_bytes() > MEMORY {
        return None;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().ok().flatten();
    let image = DynamicImage::from_decoder(decoder).ok()?;
    let bytes = without_metadata(bytes, format, orientation)?;
    let is_large = width.max(height) > THUMBNAIL;
    // A copy of an animation stands still until somebody opens the picture.
    let thumbnail = match is_large || bytes.len() > SMALL || format == ImageFormat::Gif {
        true => {
            let mut small = match is_large {
                true => image.thumbnail(THUMBNAIL, THUMBNAIL),
                false => image,
            };
            small.apply_orientation(orientation);
            Some(encode(&small, profile)?)
        }
        false => None,
    };
    let is_turned = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let (width, height) = match is_turned {
        true => (height, width),
        false => (width, height),
    };
    Some(Kept {
        bytes,
        media_type: format.to_mime_type(),
        width,
        height,
        thumbnail,
    })
}

fn encode(image: &DynamicImage, profile: Option<Vec<u8>>) -> Option<(Bytes, &'static str)> {
    let mut encoded = Vec::new();
    let rgba = image.to_rgba8();
    let is_opaque = rgba.pixels().all(|pixel| pixel.0[3] == u8::MAX);
    // A profile that does not fit is left out.
    if is_opaque {
        let mut encoder = JpegEncoder::new_with_quality(&mut encoded, QUALITY);
        let _ = profile.map(|profile| encoder.set_icc_profile(profile));
        image.to_rgb8().write_with_encoder(encoder).ok()?;
        Some((encoded.into(), ".jpg"))
    } else {
        let mut encoder = PngEncoder::new(&mut encoded);
        let _ = profile.map(|profile| encoder.set_icc_profile(profile));
        rgba.write_with_encoder(encoder).ok()?;
        Some((encoded.into(), ".png"))
    }
}

/// The same picture without what it says about where, when and with what it was taken.
fn without_metadata(bytes: Bytes, format: ImageFormat, turned: Orientation) -> Option<Bytes> {
    let exif = (turned != Orientation::NoTransforms).then(|| exif_of(turned));
    Some(match format {
        ImageFormat::Jpeg => {
            let mut jpeg = Jpeg::from_bytes(bytes).ok()?;
            jpeg.segments_mut()
                .retain(|segment| match segment.marker() {
                    markers::APP2 => segment.contents().starts_with(b"ICC_PROFILE\0"),
                    markers::APP14 => segment.contents().starts_with(b"Adobe"),
                    markers::APP1..=markers::APP15 | markers::COM => false,
                    _ => true,
                });
            jpeg.set_exif(exif);
            jpeg.encoder().bytes()
        }
        ImageFormat::Png => {
            let mut png = Png::from_bytes(bytes).ok()?;
            for kind in [b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"] {
                png.remove_chunks_by_type(*kind);
            }
            png.set_exif(exif);
            png.encoder().bytes()
        }
        ImageFormat::WebP => {
            let mut webp = WebP::from_bytes(bytes).ok()?;
            webp.remove_chunks_by_id(*b"XMP ");
            webp.set_exif(exif);
            webp.encoder().bytes()
        }
        // It has comments, but no place for such metadata.
        _ => bytes,
    })
}

/// EXIF data with the orientation alone: one directory with one entry, in little-endian order.
fn exif_of(turned: Orientation) -> Bytes {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([turned.to_exif(), 0, 0, 0, 0, 0, 0, 0]);
    exif.into()
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    fn jpeg(width: u32, height: u32) -> Bytes {
        let mut bytes = Cursor::new(Vec::new());
        let picture = RgbImage::from_pixel(width, height, Rgb([200, 30, 30]));
        picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        bytes.into_inner().into()
    }

    fn png(picture: &RgbaImage) -> Bytes {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner().into()
    }

    fn contains(bytes: &[u8], words: &[u8]) -> bool {
        bytes.windows(words.len()).any(|part| part == words)
    }

    #[test]
    fn a_picture_keeps_its_orientation_and_nothing_about_its_author() {
        let mut picture = Jpeg::from_bytes(jpeg(1600, 800)).unwrap();
        let mut exif = exif_of(Orientation::Rotate90).to_vec();
        exif.extend(b"GPS 52.5 N");
        picture.set_exif(Some(exif.into()));
        for marker in [markers::APP1, markers::APP13, markers::COM] {
            let said = Bytes::from_static(b"http://ns.adobe.com/xap/1.0/\0by Anna");
            let said = img_parts::jpeg::JpegSegment::new_with_contents(marker, said);
            picture.segments_mut().insert(1, said);
        }
        let bytes = picture.encoder().bytes();
        assert!(contains(&bytes, b"GPS") && contains(&bytes, b"Anna"));
        let kept = decode(bytes).unwrap();
        assert!(!contains(&kept.bytes, b"GPS") && !contains(&kept.bytes, b"Anna"));
        assert_eq!((kept.width, kept.height), (800, 1600));
        let mut again = ImageReader::with_format(Cursor::new(&kept.bytes), ImageFormat::Jpeg)
            .into_decoder()
            .unwrap();
        assert_eq!(again.orientation().unwrap(), Orientation::Rotate90);
        // The smaller one is turned itself.
        let small = image::load_from_memory(&kept.thumbnail.unwrap().0).unwrap();
        assert_eq!((small.width(), small.height()), (360, 720));
    }

    #[test]
    fn texts_in_a_png_are_removed_and_its_transparency_stays() {
        let clear = RgbaImage::from_pixel(900, 30, Rgba([0, 0, 0, 9]));
        let mut picture = Png::from_bytes(png(&clear)).unwrap();
        let text = Bytes::from_static(b"Author\0Anna");
        let text = img_parts::png::PngChunk::new(*b"tEXt", text);
        picture.chunks_mut().insert(1, text);
        let kept = decode(picture.encoder().bytes()).unwrap();
        assert!(!contains(&kept.bytes, b"Anna"));
        let (thumbnail, ending) = kept.thumbnail.unwrap();
        assert_eq!(ending, ".png");
        let small = image::load_from_memory(&thumbnail).unwrap().to_rgba8();
        assert_eq!(small.get_pixel(0, 0).0[3], 9);
    }

    #[test]
    fn small_pictures_need_no_smaller_copy_and_opaque_ones_get_a_jpeg() {
        assert_eq!(decode(jpeg(40, 30)).unwrap().thumbnail, None);
        let large = RgbaImage::from_pixel(1000, 10, Rgba([1, 2, 3, 255]));
        let (thumbnail, ending) = decode(png(&large)).unwrap().thumbnail.unwrap();
        assert_eq!(ending, ".jpg");
        assert_eq!(format_of(&thumbnail), Some(ImageFormat::Jpeg));
    }

    #[test]
    fn what_cannot_be_decoded_within_the_limits_is_no_picture() {
        for bytes in [
            &b""[..],
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            b"GIF89a<script>alert(1)</script>",
            b"\x89PNG\r\n\x1a\n",
            b"BM some bitmap",
        ] {
            assert_eq!(decode(Bytes::from_static(bytes)), None);
        }
        // A few bytes that would fill the memory: the sizes in the header alone are refused.
        let mut bomb = png(&RgbaImage::new(1, 1)).to_vec();
        for (at, size) in [(16, 25_000_u32), (20, 25_000)] {
            bomb[at..at + 4].copy_from_slice(&size.to_be_bytes());
        }
        let checksum = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(decode(bomb.into()), None);
    }

    /// The checksum of a PNG's chunk.
    fn crc32(bytes: &[u8]) -> u32 {
        let shifted = bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            })
        });
        !shifted
    }
}
