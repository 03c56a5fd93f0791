//! Where the requests of a row come from: a generator's name or a file, and what is done to them.
//!
//! ```text
//!   TRACE = NAME [+xN] [+ttl] [+FORMAT] [@SIZE,SIZE...]      twitterlike+ttl@1%,64MiB
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use super::chance::whole;
use super::generate;
use super::request::{Request, read_records};

/// Where copies keep their keys apart; the keys of no trace are larger.
const COPY_SHIFT: u32 = 48;

/// How a file lists its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `Trace::write` makes it.
    Records,
    /// Big-endian numbers of so many bytes, one key each.
    Keys(usize),
    /// Lines of time, key and bytes.
    Text,
}

/// The size of a cache.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Of the bytes of all objects.
    Share(f64),
    Bytes(u64),
}

/// What the command line says of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub name: String,
    pub copies: usize,
    /// Whether most items expire, within two days that the trace then takes.
    pub ttl: bool,
    pub sizes: Vec<Size>,
    format: Format,
}

/// Public traces, by a part of their name: format, copies, percent of the footprint.
const KNOWN: [(&str, Format, usize, &[f64]); 4] = [
    ("adapt_size", Format::Text, 24, &[1.0, 5.0, 10.0]),
    ("scarab", Format::Keys(8), 8, &[2.0, 10.0]),
    ("w106", Format::Keys(4), 4, &[2.0, 10.0]),
    ("orm-busy", Format::Keys(4), 3, &[10.0]),
];

impl Size {
    pub fn bytes(self, footprint_bytes: u64) -> u64 {
        match self {
            Size::Share(share) => whole(share * footprint_bytes as f64),
            Size::Bytes(bytes) => bytes,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let positive = |text: &str| text.parse::<f64>().ok().filter(|number| *number > 0.0);
        let size = match (text.strip_suffix('%'), text.strip_suffix("MiB")) {
            (Some(percent), _) => positive(percent).map(|percent| Size::Share(percent / 100.0)),
            (_, Some(mib)) => positive(mib).map(|mib| Size::Bytes(whole(mib * 1_048_576.0))),
            _ => None,
        };
        size.ok_or_else(|| format!("{text}: expected a size like 5% or 64MiB"))
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Source, String> {
        let (mut rest, sizes) = match text.rsplit_once('@') {
            Some((rest, sizes)) => (rest, Some(sizes)),
            None => (text, None),
        };
        let sizes: Option<Result<Vec<Size>, String>> =
            sizes.map(|sizes| sizes.split(',').map(str::parse).collect());
        let (mut copies, mut format, mut ttl) = (None, None, false);
        while let Some((before, word)) = rest.rsplit_once('+') {
            match (word, word.strip_prefix('x').and_then(|count| count.parse().ok())) {
                ("ttl", _) => ttl = true,
                ("u32" | "i32", _) => format = Some(Format::Keys(4)),
                ("u64", _) => format = Some(Format::Keys(8)),
                ("text", _) => format = Some(Format::Text),
                ("records", _) => format = Some(Format::Records),
                (_, Some(count)) if count > 0 => copies = Some(count),
                // A name may have a plus in it.
                _ => break,
            }
            rest = before;
        }
        let known = KNOWN.iter().find(|(part, ..)| file_name(rest).contains(part));
        let percents = known.map_or(&[1.0, 10.0][..], |known| known.3);
        Ok(Source {
            name: rest.to_owned(),
            copies: copies.or_else(|| known.map(|known| known.2)).unwrap_or(1),
            ttl,
            sizes: sizes.unwrap_or_else(|| {
                Ok(percents.iter().map(|percent| Size::Share(percent / 100.0)).collect())
            })?,
            format: format.or_else(|| known.map(|known| known.1)).unwrap_or(Format::Records),
        })
    }
}

impl Source {
    /// What to call it in a table.
    pub fn label(&self) -> String {
        let mut label = file_name(&self.name).split(".trace").next().unwrap_or_default().to_owned();
        if self.copies > 1 {
            label.push_str(&format!(" x{}", self.copies));
        }
        if self.ttl {
            label.push_str(" with TTLs");
        }
        label
    }

    pub fn requests(&self) -> io::Result<Vec<Request>> {
        let mut requests = match generate::named(&self.name) {
            Some(requests) => requests,
            None => self.read(Path::new(&self.name))?,
        };
        if requests.is_empty() {
            return Err(io::Error::other(format!("{}: no requests", self.name)));
        }
        if self.copies > 1 {
            requests = copied(&requests, self.copies, self.is_sized());
        }
        if self.ttl {
            generate::spread(&mut requests);
        }
        Ok(requests)
    }

    fn is_sized(&self) -> bool {
        !matches!(self.format, Format::Keys(_))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<Request>> {
        let because = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        if path.extension().is_some_and(|extension| extension == "xz") {
            let mut xz = Command::new("xz")
                .arg("-dc")
                .arg(path)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(because)?;
            let requests = match xz.stdout.take() {
                Some(mut output) => read(self.format, &mut output).map_err(because),
                None => Ok(Vec::new()),
            };
            return if xz.wait()?.success() {
                requests
            } else {
                Err(io::Error::other(format!("{}: xz cannot read it", path.display())))
            };
        }
        let known = "; generated traces are called ";
        let mut file = File::open(path).map_err(|e| {
            let names = generate::NAMES.join(", ");
            io::Error::new(e.kind(), format!("{}: {e}{known}{names}", path.display()))
        })?;
        read(self.format, &mut file).map_err(because)
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Those of the public traces that are in a folder.
pub fn known_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in folder.read_dir()? {
        paths.push(entry?.path());
    }
    paths.sort();
    let name = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
    let of = |part: &str| {
        paths.iter().find(|path| {
            name(path).is_some_and(|name| name.contains(part) && name.contains(".trace"))
        })
    };
    Ok(KNOWN.iter().filter_map(|(part, ..)| of(part)).cloned().collect())
}

fn read(format: Format, input: &mut impl Read) -> io::Result<Vec<Request>> {
    match format {
        Format::Records => return read_records(input),
        Format::Keys(width) => read_keys(width, input),
        Format::Text => read_text(input),
    }
    .map(|mut requests| {
        for (request, index) in requests.iter_mut().zip(0usize..) {
            request.time_s = u32::try_from(index / generate::REQUESTS_PER_S).unwrap_or(u32::MAX);
        }
        requests
    })
}

/// Keys alone: each gets a size of its own.
fn read_keys(width: usize, input: &mut impl Read) -> io::Result<Vec<Request>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    if !bytes.len().is_multiple_of(width) {
        let text = format!("{} bytes are no whole number of keys", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let key = |bytes: &[u8]| bytes.iter().fold(0u64, |key, byte| key << 8 | u64::from(*byte));
    let keys = bytes.chunks_exact(width).map(key);
    Ok(keys.map(|key| Request { time_s: 0, key, bytes: generate::mixed_bytes(key) }).collect())
}

fn read_text(input: &mut impl Read) -> io::Result<Vec<Request>> {
    let mut text = String::new();
    input.read_to_string(&mut text)?;
    let request = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let key = words.next()?.parse().ok()?;
        let bytes = words.next()?.parse().ok()?;
        Some(Request { time_s: 0, key, bytes })
    };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| request(line).ok_or_else(|| io::Error::other(format!("not a request: {line}"))))
        .collect()
}

/// Several copies of a trace at once, each with its own keys and begun at another place, so that
/// there is as much more of everything without any key being asked for more often.
fn copied(requests: &[Request], copies: usize, sized: bool) -> Vec<Request> {
    let mut all = Vec::with_capacity(requests.len() * copies);
    for index in 0..requests.len() {
        for copy in 0..copies {
            let at = (index + copy * (requests.len() / copies)) % requests.len();
            let key = requests[at].key ^ (copy as u64) << COPY_SHIFT;
            let bytes = if sized { requests[at].bytes } else { generate::mixed_bytes(key) };
            let time_s = u32::try_from(all.len() / generate::REQUESTS_PER_S).unwrap_or(u32::MAX);
            all.push(Request { time_s, key, bytes });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(requests: &[Request]) -> Vec<u64> {
        requests.iter().map(|request| request.key).collect()
    }

    #[test]
    fn numbers_are_big_endian() {
        let bytes = [0, 0, 1, 2, 0xff, 0, 0, 0];
        assert_eq!(keys(&read(Format::Keys(4), &mut &bytes[..]).unwrap()), [0x102, 0xff00_0000]);
        assert_eq!(keys(&read(Format::Keys(8), &mut &bytes[..]).unwrap()), [0x0102_ff00_0000]);
        assert!(read(Format::Keys(4), &mut &bytes[..7]).is_err());
        let one = read(Format::Keys(4), &mut &bytes[..]).unwrap();
        assert_eq!(one[0].bytes, generate::mixed_bytes(0x102));
    }

    #[test]
    fn text_has_sizes() {
        let read = |text: &str| read(Format::Text, &mut text.as_bytes());
        let requests = read("1 0 68\n2 17 7454\n\n").unwrap();
        assert_eq!(keys(&requests), [0, 17]);
        assert_eq!((requests[0].bytes, requests[1].bytes), (68, 7454));
        assert!(read("1 2\n").unwrap_err().to_string().contains("1 2"));
        assert!(read("1 x 3\n").is_err());
    }

    #[test]
    fn copies_are_rotated_and_have_their_own_keys() {
        let trace: Vec<Request> =
            (0..4).map(|key| Request { time_s: 0, key, bytes: 100 }).collect();
        let all = copied(&trace, 2, true);
        let other = |key: u64| key | 1 << COPY_SHIFT;
        let expected = [0, other(2), 1, other(3), 2, other(0), 3, other(1)];
        assert_eq!(keys(&all), expected);
        assert!(all.iter().all(|request| request.bytes == 100));
        let drawn = copied(&trace, 2, false);
        assert_ne!(drawn[0].bytes, drawn[5].bytes, "each copy draws its own sizes");
    }

    #[test]
    fn words_say_what_is_done_to_a_trace() {
        let source: Source = "twitterlike+x8+ttl@1%,64MiB".parse().unwrap();
        assert_eq!((source.name.as_str(), source.copies, source.ttl), ("twitterlike", 8, true));
        assert_eq!(source.sizes, [Size::Share(0.01), Size::Bytes(64 << 20)]);
        assert_eq!(source.sizes[0].bytes(1000), 10);
        assert_eq!(source.label(), "twitterlike x8 with TTLs");
        let known: Source = "/a/b+c/cloud_physics_w106.trace.xz".parse().unwrap();
        assert_eq!((known.copies, known.format), (4, Format::Keys(4)));
        assert_eq!(known.sizes, [Size::Share(0.02), Size::Share(0.1)]);
        assert_eq!(known.label(), "cloud_physics_w106 x4");
        let plain: Source = "requests.bin".parse().unwrap();
        assert_eq!((plain.copies, plain.format, plain.ttl), (1, Format::Records, false));
        let told: Source = "x+x1+u64@10%".parse().unwrap();
        assert_eq!((told.copies, told.format), (1, Format::Keys(8)));
        for bad in ["x@1", "x@", "x@0%", "x@-1MiB"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
