//! `narrows plan`: the ways to encode a tensor, side by side.

use std::path::PathBuf;
use std::sync::Arc;

use narrows::{
    Coder, CoderChoice, Content, Decoder, EncodeOptions, Encoder, Inspection, LayoutChoice, Limits, Profile,
    Profiles, Quantizer, Reshape, ReshapeSearch, TensorView, Visit,
};
use serde::Serialize;

use crate::destination::{Destination, Existing};
use crate::failure::{Failure, Result};
use crate::input::{self, Source};
use crate::options::{self, Quantization, TargetName};
use crate::output::{Align, Output, grouped, table};
use crate::plot::ReshapeCurve;

const EXAMPLES: &str = "\
Examples:
  narrows plan features.npy                     every way at 4 bits
  narrows plan features.npy --bits 3 --clip mse
  narrows plan features.npy --svg reshape.svg   and the cost of every reshape dimension, drawn
  narrows plan features.npy --json | jq '.candidates[] | select(.chosen)'";

/// States of the tANS machines that are tried: 2^6 to 2^12, by fours.
const STATE_BITS: [u32; 4] = [6, 8, 10, 12];
/// The candidates whose names the drawing needs.
const ORDER_0: &str = "order-0";
const CONTEXTS: &str = "contexts";
const PACKED: &str = "packed";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An .npy, .npz or .safetensors file of f32, f16 or bf16; - reads standard input
    input: PathBuf,
    /// The tensor of the file [default: its only one]
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    #[command(flatten)]
    quantization: Quantization,
    /// What lanes and chunks are for
    #[arg(long, value_enum, default_value_t = TargetName::Size)]
    target: TargetName,
    /// A profile to compare with
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Draw the cost `T_tot(N)` of the modified CSR for every N
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Replace the drawing if it is there already
    #[arg(long, short)]
    force: bool,
}

/// A way to encode, tried.
#[derive(Serialize)]
struct Candidate {
    name: String,
    /// The options of `narrows encode` that give it.
    options: String,
    /// None where encoding is the estimate.
    estimated_bytes: Option<f64>,
    bytes: usize,
    estimate_error_percent: Option<f64>,
    bits_per_element: f64,
    /// Entropy of the symbols given their contexts, spread over the elements.
    entropy_bits_per_element: Option<f64>,
    tables: usize,
    lanes: usize,
    chunks: usize,
    /// What `narrows encode` does by itself.
    chosen: bool,
    #[serde(skip)]
    frame: Vec<u8>,
}

/// [`Visit`] as JSON.
#[derive(Serialize)]
struct VisitReport {
    rows: usize,
    columns: usize,
    symbols: usize,
    entropy_bits_per_symbol: f64,
    total_bits: f64,
}

/// The reshape dimension of the modified CSR.
struct Search {
    algorithm_1: Vec<Visit>,
    every_divisor: Vec<Visit>,
}

pub fn run(args: &Args, output: &Output) -> Result<()> {
    let source = Source::from(args.input.as_path());
    let drawing = args.svg.as_deref().map(Destination::from);
    if let Some(drawing) = &drawing {
        drawing.check(Existing::replace_if(args.force))?;
    }
    let output = if drawing == Some(Destination::Stdout) { output.beside_data() } else { output.clone() };
    let profile = args.profile.as_deref().map(options::profile).transpose()?;
    let named = input::tensor(&source, args.tensor.as_ref())?;
    let view = named.tensor.view();
    let planner = Planner { args, view, profile, source: &source };
    let candidates = planner.candidates()?;
    let search = planner.search(&candidates);

    let (shape, subject) =
        (view.shape(), named.name.as_ref().map_or(source.to_string(), |n| format!("{source}: {n}")));
    if output.is_json() {
        output.print_json(&serde_json::json!({
            "file": source.to_string(),
            "tensor": named.name,
            "dtype": view.dtype().name(),
            "shape": shape.dims(),
            "elements": shape.elements(),
            "raw_bytes": view.bytes(),
            "candidates": candidates,
            "reshape": search.as_ref().map(Search::json),
        }))?;
    } else {
        let (elements, bytes) = (grouped(shape.elements() as u64), grouped(view.bytes() as u64));
        output.print(format_args!(
            "{subject}: {} {shape}, {elements} elements, {bytes} bytes\n",
            view.dtype()
        ))?;
        output.print(text(&candidates))?;
        if let Some(search) = &search {
            output.print(format_args!("\n{}", search.text()))?;
        }
    }
    let Some(drawing) = drawing else { return Ok(()) };
    let Some(search) = search else {
        let failure = Failure::data(format!("{subject} has no symbols to reshape"));
        return Err(failure
            .because("it is constant, empty, or too small to quantise")
            .hint("leave --svg away"));
    };
    let subtitle = format!(
        "{subject}, {} {shape}, T = {}, {} levels",
        view.dtype(),
        grouped(shape.elements() as u64),
        1_u32 << args.quantization.bits
    );
    drawing.write(search.draw(subtitle, &candidates).as_bytes())?;
    output.note(format_args!("\n{drawing}: T_tot(N), drawn"));
    Ok(())
}

struct Planner<'a> {
    args: &'a Args,
    view: TensorView<'a>,
    profile: Option<Arc<Profile>>,
    source: &'a Source,
}

impl Planner<'_> {
    fn options(&self, layout: LayoutChoice, coder: CoderChoice) -> EncodeOptions {
        let Quantization { axis, .. } = self.args.quantization;
        let (quantizer, target) = (self.args.quantization.quantizer(), self.args.target.into());
        EncodeOptions { quantizer, layout, coder, target, axis, profile: None }
    }

    fn candidates(&self) -> Result<Vec<Candidate>> {
        use LayoutChoice::{CsrJoint, CsrSeparate, Natural, Planes};
        use Reshape::{Algorithm1, EveryDivisor};
        let mut candidates = vec![self.raw()?];
        let rans = CoderChoice::Rans;
        for (name, options, layout, coder) in [
            (PACKED, "--coder packed", Natural, CoderChoice::Packed),
            (ORDER_0, "--layout natural --coder rans", Natural, rans),
            (CONTEXTS, "--layout planes --coder rans", Planes, rans),
            ("csr, Algorithm 1", "--layout csr", CsrJoint(Algorithm1), rans),
            ("csr, best divisor", "--layout csr-exhaustive", CsrJoint(EveryDivisor), rans),
            ("csr, separate", "--layout csr-separate", CsrSeparate(EveryDivisor), rans),
        ] {
            candidates.push(self.candidate(name, options, self.options(layout, coder))?);
        }
        for state_bits in STATE_BITS {
            let states = 1_u32 << state_bits;
            let coder = CoderChoice::Tans { state_bits };
            let (name, options) = (format!("tans, {states} states"), format!("--coder tans:{states}"));
            let candidate = self.candidate(&name, &options, self.options(Natural, coder))?;
            // A machine with fewer states than symbols becomes a larger one.
            let larger = |coder| matches!(coder, Coder::Tans { state_bits: actual } if actual != state_bits);
            if !self.inspect(&candidate.frame)?.streams.iter().any(|stream| larger(stream.coder)) {
                candidates.push(candidate);
            }
        }
        let lossless = EncodeOptions {
            quantizer: Quantizer::Lossless,
            ..self.options(LayoutChoice::Auto, CoderChoice::Auto)
        };
        candidates.push(self.candidate("lossless", "--lossless", lossless)?);
        if let Some(profile) = &self.profile {
            let options = EncodeOptions { target: self.args.target.into(), ..profile.options() };
            candidates.push(self.candidate("profile", "--profile FILE", options)?);
        }
        // What `encode` would write is one of these frames, byte for byte.
        let automatic = self.encoder(self.options(LayoutChoice::Auto, CoderChoice::Auto))?;
        let automatic = { automatic }.encode(&self.view).map_err(|error| self.failed(&error))?;
        if let Some(chosen) = candidates.iter_mut().find(|candidate| candidate.frame == automatic) {
            chosen.chosen = true;
        }
        Ok(candidates)
    }

    fn failed(&self, error: &narrows::Error) -> Failure {
        Failure::codec(format!("cannot plan {}", self.source), error)
    }

    fn encoder(&self, options: EncodeOptions) -> Result<Encoder> {
        Encoder::new(options).map_err(|error| self.failed(&error))
    }

    fn raw(&self) -> Result<Candidate> {
        let frame = narrows::encode_raw(&self.view);
        self.measured("raw", "", frame, None)
    }

    fn candidate(&self, name: &str, options: &str, how: EncodeOptions) -> Result<Candidate> {
        let lossless = how.quantizer == Quantizer::Lossless;
        let mut encoder = self.encoder(how)?;
        let estimate = encoder.estimate(&self.view).map_err(|error| self.failed(&error))?;
        let frame = encoder.encode(&self.view).map_err(|error| self.failed(&error))?;
        self.measured(name, options, frame, (!lossless).then_some(estimate))
    }

    fn measured(
        &self,
        name: &str,
        options: &str,
        frame: Vec<u8>,
        estimate: Option<narrows::Estimate>,
    ) -> Result<Candidate> {
        let (bytes, elements) = (frame.len(), self.view.shape().elements().max(1) as f64);
        let inspection = self.inspect(&frame)?;
        // The stream that matters: a lossless frame's exponents, a quantised one's only one.
        let stream = inspection.streams.first();
        Ok(Candidate {
            name: name.to_owned(),
            options: options.to_owned(),
            estimated_bytes: estimate.map(|estimate| estimate.bytes),
            bytes,
            estimate_error_percent: estimate.map(|estimate| 100.0 * (estimate.bytes / bytes as f64 - 1.0)),
            bits_per_element: 8.0 * bytes as f64 / elements,
            entropy_bits_per_element: estimate.map(|estimate| estimate.entropy_bits / elements),
            tables: stream.map_or(0, |stream| stream.tables),
            lanes: stream.map_or(0, |stream| stream.lanes),
            chunks: stream.map_or(0, |stream| stream.chunks),
            chosen: false,
            frame,
        })
    }

    fn profiles(&self) -> Profiles {
        let mut profiles = Profiles::default();
        if let Some(profile) = &self.profile {
            profiles.insert(Arc::clone(profile));
        }
        profiles
    }

    fn inspect(&self, frame: &[u8]) -> Result<Inspection> {
        let limits = Limits { max_elements: u64::MAX };
        narrows::inspect(frame, &self.profiles(), &limits).map_err(|error| self.failed(&error))
    }

    /// The search over the symbols that every candidate codes; none if there are none.
    fn search(&self, candidates: &[Candidate]) -> Option<Search> {
        let packed = candidates.iter().find(|candidate| candidate.name == PACKED)?;
        let quantized = matches!(narrows::peek(&packed.frame).ok()?.content, Content::Quantized { .. });
        let mut decoder = Decoder::new().with_limits(Limits { max_elements: u64::MAX });
        decoder.decode(&packed.frame).ok().filter(|_| quantized)?;
        let mut search = ReshapeSearch::new(decoder.symbols(), 1 << self.args.quantization.bits);
        Some(Search { algorithm_1: search.algorithm_1(), every_divisor: search.every_divisor() })
    }
}

impl Search {
    fn chosen(&self) -> Option<Visit> {
        narrows::best_reshape(&self.algorithm_1)
    }

    fn text(&self) -> String {
        let kind = |name: &str, best: Option<Visit>, visits: &[Visit]| match best {
            Some(Visit { rows, columns, total_bits, .. }) => {
                let bytes = grouped((total_bits / 8.0).round() as u64);
                format!(
                    "{name:<14} N x K = {rows} x {columns}, T_tot = {bytes} bytes, of {} visited",
                    visits.len()
                )
            }
            None => format!("{name:<14} visits no N"),
        };
        let best = narrows::best_reshape(&self.every_divisor);
        format!(
            "{}\n{}",
            kind("Algorithm 1", self.chosen(), &self.algorithm_1),
            kind("every divisor", best, &self.every_divisor)
        )
    }

    fn json(&self) -> serde_json::Value {
        let reports = |visits: &[Visit]| visits.iter().map(VisitReport::from).collect::<Vec<_>>();
        serde_json::json!({
            "algorithm_1": reports(&self.algorithm_1),
            "every_divisor": reports(&self.every_divisor),
            "chosen_rows": self.chosen().map(|visit| visit.rows),
            "best_rows": narrows::best_reshape(&self.every_divisor).map(|visit| visit.rows),
        })
    }

    fn draw(&self, subtitle: String, candidates: &[Candidate]) -> String {
        let level = |name: &str, label: &'static str| {
            let candidate = candidates.iter().find(|candidate| candidate.name == name);
            candidate.map(|candidate| (label, candidate.bytes as f64))
        };
        let levels = [
            level(CONTEXTS, "dense, neighbour contexts, whole frame"),
            level(ORDER_0, "dense, order 0, whole frame"),
            level(PACKED, "bit packing, whole frame"),
        ];
        let curve = ReshapeCurve {
            title: "Cost of the modified CSR by its reshape dimension".to_owned(),
            subtitle,
            every_divisor: &self.every_divisor,
            algorithm_1: &self.algorithm_1,
            chosen: self.chosen(),
            levels: levels.into_iter().flatten().collect(),
        };
        curve.draw()
    }
}

impl From<&Visit> for VisitReport {
    fn from(visit: &Visit) -> Self {
        let Visit { rows, columns, symbols, entropy, total_bits } = *visit;
        Self { rows, columns, symbols, entropy_bits_per_symbol: entropy, total_bits }
    }
}

fn text(candidates: &[Candidate]) -> String {
    use Align::{Left, Right};
    let mut table = table(&[
        ("candidate", Left),
        ("bytes", Right),
        ("estimate", Right),
        ("error %", Right),
        ("bits/el.", Right),
        ("entropy", Right),
        ("tables", Right),
        ("lanes", Right),
        ("chunks", Right),
        ("encode with", Left),
    ]);
    let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    let unless_zero = |n: usize| if n == 0 { "-".to_owned() } else { n.to_string() };
    for candidate in candidates {
        table.add_row([
            format!("{} {}", if candidate.chosen { ">" } else { " " }, candidate.name),
            grouped(candidate.bytes as u64),
            or_dash(candidate.estimated_bytes.map(|bytes| grouped(bytes.round() as u64))),
            or_dash(candidate.estimate_error_percent.map(|percent| format!("{percent:+.2}"))),
            format!("{:.3}", candidate.bits_per_element),
            or_dash(candidate.entropy_bits_per_element.map(|bits| format!("{bits:.3}"))),
            unless_zero(candidate.tables),
            unless_zero(candidate.lanes),
            unless_zero(candidate.chunks),
            candidate.options.clone(),
        ]);
    }
    format!("{}\n\n> is what `narrows encode` chooses by itself.", table.trim_fmt())
}
