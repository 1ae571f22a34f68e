//! `narrows inspect`: what a frame, or a file of packed weights, holds and where its bytes go.

mod weights;

use std::fmt::Write;
use std::path::PathBuf;

use narrows::{
    Affine, Coder, Content, Decoder, Dequantizer, Error, Header, Inspection, Layout, Limits, Profiles,
    StreamInspection,
};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::input::Source;
use crate::options;
use crate::output::{Align, Output, counted, grouped, table};

const EXAMPLES: &str = "\
Examples:
  narrows inspect features.nrw
  narrows inspect *.nrw --json | jq '.frames[].bits_per_element'
  narrows inspect features.nrw --profile cut.nrp    a frame that was coded with a profile
  narrows inspect model.packed.safetensors          packed weights, layer by layer
  narrows inspect model.packed.safetensors --chart layers.svg";

/// Characters of the longest bar.
const BAR: f64 = 32.0;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The frames, or files of packed weights; - reads a frame from standard input
    #[arg(required = true)]
    frame: Vec<PathBuf>,
    /// A profile that a frame may name; may be given several times
    #[arg(long, value_name = "FILE")]
    profile: Vec<PathBuf>,
    /// Refuse frames of more elements than this
    #[arg(long, value_name = "N", default_value_t = Limits::default().max_elements)]
    max_elements: u64,
    /// Draw the bits of each layer of packed weights to this SVG file
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

/// What is known of a frame.
#[derive(Serialize)]
struct Report {
    file: String,
    version: u8,
    dtype: &'static str,
    shape: Vec<usize>,
    elements: usize,
    raw_bytes: usize,
    bytes: usize,
    ratio: f64,
    bits_per_element: f64,
    /// The name of the profile it was coded with.
    profile: Option<String>,
    /// Whether that profile is missing here, so that nothing past the header is known.
    profile_missing: bool,
    content: &'static str,
    quantizer: Option<Quantizer>,
    layout: Option<LayoutReport>,
    streams: Vec<Stream>,
    /// Entropy of the symbols without any context, which no order-0 coder can go below.
    entropy_bits_per_symbol: Option<f64>,
    parts: Vec<Part>,
}

#[derive(Serialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
enum Quantizer {
    Tensor { levels: u16, step: f32, zero: i32 },
    Channels { levels: u16, channels: usize, smallest_step: f32, largest_step: f32 },
    Profile { levels: Option<u16>, step: Option<f32>, zero: Option<i32> },
}

#[derive(Serialize)]
struct LayoutReport {
    name: &'static str,
    axis: usize,
    /// `N` and `K` of the modified CSR.
    rows: Option<usize>,
    columns: Option<usize>,
    nonzeros: Option<usize>,
}

#[derive(Serialize)]
struct Stream {
    holds: &'static str,
    symbols: usize,
    alphabet: usize,
    coder: String,
    lanes: usize,
    chunks: usize,
    context: &'static str,
    tables: usize,
}

#[derive(Serialize)]
struct Part {
    name: String,
    bytes: usize,
    percent: f64,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let profiles = options::profiles(&args.profile)?;
    let limits = Limits { max_elements: args.max_elements };
    let mut reports = Vec::with_capacity(args.frame.len());
    let mut packed = Vec::new();
    for (index, path) in args.frame.iter().enumerate() {
        if super::pack::is_packed(path) {
            let report = weights::Report::of(path, output)?;
            args.chart.as_ref().map_or(Ok(()), |chart| report.draw(chart))?;
            if output.is_json() {
                packed.push(report);
            } else {
                let between = if index > 0 { "\n" } else { "" };
                output.print(format_args!("{between}{}", report.text()))?;
            }
            continue;
        }
        if args.chart.is_some() {
            let failure = Failure::usage(format!("{} is not a file of packed weights", path.display()));
            return Err(failure.hint("--chart draws the layers of what `narrows pack` writes"));
        }
        let source = Source::from(path.as_path());
        let report = Report::of(&source, &profiles, limits)?;
        if output.is_json() {
            reports.push(report);
        } else {
            let between = if index > 0 { "\n" } else { "" };
            output.print(format_args!("{between}{}", report.text()))?;
        }
    }
    match (output.is_json(), packed.is_empty()) {
        (false, _) => Ok(()),
        (true, true) => output.print_json(&serde_json::json!({ "frames": reports })),
        (true, false) => output.print_json(&serde_json::json!({ "frames": reports, "packed": packed })),
    }
}

impl Report {
    fn of(source: &Source, profiles: &Profiles, limits: Limits) -> Result<Self> {
        let frame = source.read()?;
        let cannot = |error: &Error| Failure::codec(format!("cannot inspect {source}"), error);
        let inspection = match narrows::inspect(&frame, profiles, &limits) {
            Ok(inspection) => inspection,
            // The header and the checksum are right, then; they are worth showing.
            Err(Error::UnknownProfile { .. }) => {
                let header = narrows::peek(&frame).map_err(|error| cannot(&error))?;
                return Ok(Self::without_profile(source, &frame, &header));
            }
            Err(error) => return Err(cannot(&error)),
        };
        let mut decoder = Decoder::new().with_limits(limits).with_profiles(profiles.clone());
        decoder.decode(&frame).map_err(|error| cannot(&error))?;
        let quantized = matches!(inspection.header.content, Content::Quantized { .. });
        let mut report = Self::of_header(source, &frame, &inspection.header, profiles);
        report.entropy_bits_per_symbol = quantized.then(|| entropy(decoder.symbols()));
        report.streams = inspection.streams.iter().map(Stream::of).collect();
        report.parts = parts(&inspection);
        Ok(report)
    }

    fn without_profile(source: &Source, frame: &[u8], header: &Header) -> Self {
        Self { profile_missing: true, ..Self::of_header(source, frame, header, &Profiles::default()) }
    }

    fn of_header(source: &Source, frame: &[u8], header: &Header, profiles: &Profiles) -> Self {
        let elements = header.shape.elements();
        let raw_bytes = elements * header.dtype.size();
        let bytes = frame.len();
        Self {
            file: source.to_string(),
            version: header.version,
            dtype: header.dtype.name(),
            shape: header.shape.dims().to_vec(),
            elements,
            raw_bytes,
            bytes,
            ratio: raw_bytes as f64 / bytes as f64,
            bits_per_element: 8.0 * bytes as f64 / elements.max(1) as f64,
            profile: header.profile.map(|id| id.to_string()),
            profile_missing: false,
            content: match &header.content {
                Content::Raw => "raw",
                Content::Constant => "constant",
                Content::Quantized { .. } => "quantized",
                Content::Lossless { .. } => "lossless",
                _ => "of a kind this program does not know",
            },
            quantizer: Quantizer::of(header, profiles),
            layout: LayoutReport::of(header),
            streams: Vec::new(),
            entropy_bits_per_symbol: None,
            parts: Vec::new(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.file);
        let mut line = |name: &str, value: String| {
            writeln!(text, "  {name:<10} {value}").expect("strings take all that is written");
        };
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let (elements, raw) = (grouped(self.elements as u64), grouped(self.raw_bytes as u64));
        line("tensor", format!("{} {}: {elements} elements, {raw} bytes", self.dtype, shape.join("x")));
        let bytes = grouped(self.bytes as u64);
        line(
            "frame",
            format!("{bytes} bytes: {:.2}x, {:.3} bits/element", self.ratio, self.bits_per_element),
        );
        line("format", format!("version {}, {}; the checksum is right", self.version, self.content));
        if let Some(profile) = &self.profile {
            let missing = if self.profile_missing { " (not given: see --profile)" } else { "" };
            line("profile", format!("{profile}{missing}"));
        }
        if let Some(quantizer) = &self.quantizer {
            line("quantiser", quantizer.to_string());
        }
        if let Some(layout) = &self.layout {
            line("layout", layout.to_string());
        }
        for stream in &self.streams {
            line(stream.holds, stream.to_string());
        }
        if let Some(entropy) = self.entropy_bits_per_symbol {
            line("entropy", format!("{entropy:.3} bits/symbol without contexts"));
        }
        if !self.parts.is_empty() {
            text.push('\n');
            text.push_str(&self.bars());
        }
        text.trim_end().to_owned()
    }

    /// Where the bytes go.
    fn bars(&self) -> String {
        let headings =
            [("  part", Align::Left), ("bytes", Align::Right), ("percent", Align::Right), ("", Align::Left)];
        let mut table = table(&headings);
        for part in &self.parts {
            let bytes = grouped(part.bytes as u64);
            let percent = format!("{:.1}", part.percent);
            table.add_row([format!("  {}", part.name), bytes, percent, bar(part.percent / 100.0)]);
        }
        table.trim_fmt()
    }
}

/// A bar in eighths of a character.
fn bar(share: f64) -> String {
    let eighths = (share * BAR * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.extend(
        [None, Some('▏'), Some('▎'), Some('▍'), Some('▌'), Some('▋'), Some('▊'), Some('▉')][eighths % 8],
    );
    bar
}

fn parts(inspection: &Inspection) -> Vec<Part> {
    let mut parts = vec![("header".to_owned(), inspection.header.bytes)];
    for (index, stream) in inspection.streams.iter().enumerate() {
        // Lossless frames have several streams, and several of mantissas.
        let of = match stream.holds {
            "symbols" => String::new(),
            "mantissas" => format!("mantissas {index}: "),
            other => format!("{other}: "),
        };
        let named = [
            ("stream header", stream.bytes.header),
            ("tables", stream.bytes.model),
            ("chunk directory", stream.bytes.directory),
            ("lane states", stream.bytes.states),
            ("symbols", stream.bytes.symbols),
        ];
        parts.extend(
            named
                .into_iter()
                .filter(|(_, bytes)| *bytes > 0)
                .map(|(part, bytes)| (format!("{of}{part}"), bytes)),
        );
    }
    let known: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    let elements = inspection.bytes - inspection.checksum_bytes - known;
    if elements > 0 {
        parts.push(("elements".to_owned(), elements));
    }
    parts.push(("checksum".to_owned(), inspection.checksum_bytes));
    let percent = |bytes: usize| 100.0 * bytes as f64 / inspection.bytes as f64;
    parts.into_iter().map(|(name, bytes)| Part { name, bytes, percent: percent(bytes) }).collect()
}

/// Bits for each symbol, without any context.
fn entropy(symbols: &[u8]) -> f64 {
    let mut counts = [0_usize; 256];
    for &symbol in symbols {
        counts[symbol as usize] += 1;
    }
    let total = symbols.len() as f64;
    let present = counts.into_iter().filter(|&n| n > 0).map(|n| n as f64);
    present.map(|n| n / total * (total / n).log2()).sum()
}

impl Quantizer {
    fn of(header: &Header, profiles: &Profiles) -> Option<Self> {
        let Content::Quantized { dequantizer, .. } = &header.content else { return None };
        Some(match dequantizer {
            Some(Dequantizer::Tensor(map)) => {
                Self::Tensor { levels: map.levels(), step: map.step(), zero: map.zero() }
            }
            Some(Dequantizer::PerChannel(maps)) => Self::Channels {
                levels: maps.first().map_or(0, Affine::levels),
                channels: maps.len(),
                smallest_step: maps.iter().map(Affine::step).fold(f32::INFINITY, f32::min),
                largest_step: maps.iter().map(Affine::step).fold(0.0, f32::max),
            },
            None => {
                let profile = header.profile.and_then(|id| profiles.find(id).ok());
                let map = profile.map(|profile| profile.affine());
                let (levels, step, zero) =
                    (map.map(Affine::levels), map.map(Affine::step), map.map(Affine::zero));
                Self::Profile { levels, step, zero }
            }
        })
    }
}

impl std::fmt::Display for Quantizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tensor { levels, step, zero } => {
                write!(f, "{levels} levels, step {step:.6}, zero at symbol {zero}")
            }
            Self::Channels { levels, channels, smallest_step, largest_step } => {
                write!(
                    f,
                    "{levels} levels, steps of {channels} channels from {smallest_step:.6} to {largest_step:.6}"
                )
            }
            Self::Profile { levels: Some(levels), step: Some(step), zero: Some(zero) } => {
                write!(f, "the profile's: {levels} levels, step {step:.6}, zero at symbol {zero}")
            }
            Self::Profile { .. } => f.write_str("the profile's"),
        }
    }
}

impl LayoutReport {
    fn of(header: &Header) -> Option<Self> {
        let elements = header.shape.elements();
        let (name, axis, rows, nonzeros) = match header.content {
            Content::Quantized { axis, layout, nonzeros, .. } => match layout {
                Layout::Natural => ("natural", axis, None, None),
                Layout::Planes => ("planes", axis, None, None),
                Layout::CsrJoint { rows } => ("csr, joint table", axis, Some(rows), Some(nonzeros)),
                Layout::CsrSeparate { rows } => ("csr, separate tables", axis, Some(rows), Some(nonzeros)),
            },
            Content::Lossless { axis, exponents, .. } => {
                (if exponents == Layout::Planes { "planes" } else { "natural" }, axis, None, None)
            }
            _ => return None,
        };
        Some(Self { name, axis, rows, columns: rows.map(|rows| elements / rows.max(1)), nonzeros })
    }
}

impl std::fmt::Display for LayoutReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, channels along axis {}", self.name, self.axis)?;
        if let (Some(rows), Some(columns), Some(nonzeros)) = (self.rows, self.columns, self.nonzeros) {
            write!(f, "; N x K = {rows} x {columns}, {} non-zero symbols", grouped(nonzeros as u64))?;
        }
        Ok(())
    }
}

impl Stream {
    fn of(stream: &StreamInspection) -> Self {
        Self {
            holds: stream.holds,
            symbols: stream.symbols,
            alphabet: stream.alphabet,
            coder: match stream.coder {
                Coder::Constant => "constant".to_owned(),
                Coder::Packed => "packed".to_owned(),
                Coder::Rans => "rans".to_owned(),
                Coder::Tans { state_bits } => format!("tans:{}", 1_u32 << state_bits),
            },
            lanes: stream.lanes,
            chunks: stream.chunks,
            context: stream.context,
            tables: stream.tables,
        }
    }
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let symbols = grouped(self.symbols as u64);
        write!(f, "{symbols} of {} kinds, {}", self.alphabet, self.coder)?;
        if self.tables > 0 {
            let (lanes, chunks) = (counted(self.lanes, "lane"), counted(self.chunks, "chunk"));
            write!(f, ", {lanes} x {chunks}, {}", counted(self.tables, "table"))?;
        }
        match self.context {
            "neighbours" => f.write_str(" by neighbours"),
            "segments" => f.write_str(" by segment"),
            _ => Ok(()),
        }
    }
}
