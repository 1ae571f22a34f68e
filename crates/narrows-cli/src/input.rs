//! Tensors from files: `.npy`, `.npz` and `.safetensors`, told apart by their first bytes.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use narrows::{Dtype, Element, MAGIC, Shape, Tensor, TensorView};
use npyz::npz::NpzArchive;
use npyz::{DType, NpyHeader, Order};
use safetensors::SafeTensors;

use crate::failure::{Code, Failure, Result};

const TO_FLOAT: &str = "narrows takes f32, f16 and bf16; to convert in Python: x.astype(numpy.float32)";
const NPY: &[u8] = b"\x93NUMPY";
const ZIP: &[u8] = b"PK";

/// Where bytes come from: a file, or standard input for `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Stdin,
    File(PathBuf),
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Source {
    /// All bytes.
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Stdin => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut bytes);
                read.map_err(|error| Failure::io("read", Path::new("standard input"), &error))?;
                Ok(bytes)
            }
            Self::File(path) => fs::read(path).map_err(|error| {
                let failure = Failure::io("read", path, &error);
                if error.kind() == io::ErrorKind::NotFound { failure.hint("check the path") } else { failure }
            }),
        }
    }
}

/// A tensor and its name within its file; an `.npy` file's only one has none.
#[derive(Debug)]
pub struct Named {
    pub name: Option<String>,
    pub tensor: Tensor,
}

/// The tensors of a file that are called one of `wanted`, or all of them if that is empty.
pub fn tensors(source: &Source, wanted: &[String]) -> Result<Vec<Named>> {
    let bytes = source.read()?;
    let in_file = |failure: Failure| failure.in_file(source);
    if bytes.starts_with(NPY) {
        if let Some(name) = wanted.first() {
            let failure = Failure::usage(format!("{source} has no tensor called {name}"));
            return Err(failure.because("it is an .npy file, which holds one tensor without a name"));
        }
        let tensor = read_npy(&mut Cursor::new(&bytes)).map_err(in_file)?;
        return Ok(vec![Named { name: None, tensor }]);
    }
    let mut archive = Archive::open(&bytes).map_err(in_file)?;
    let names = archive.names();
    if names.is_empty() {
        return Err(Failure::new(Code::NoInput, format!("{source} holds no tensors")));
    }
    if let Some(missing) = wanted.iter().find(|name| !names.contains(name)) {
        let failure = Failure::usage(format!("{source} has no tensor called {missing}"));
        return Err(failure.hint(format!("it holds {}", list(&names))));
    }
    let chosen = if wanted.is_empty() { &names } else { wanted };
    let read = |name: &String| {
        let tensor = archive.tensor(name).map_err(|failure| {
            let failure = failure.in_file(&format_args!("{source}, tensor {name}"));
            if names.len() > 1 && wanted.is_empty() {
                failure.or_hint("choose others with --tensor")
            } else {
                failure
            }
        })?;
        Ok(Named { name: Some(name.clone()), tensor })
    };
    chosen.iter().map(read).collect()
}

/// The only tensor of a file, or the one called `wanted`.
pub fn tensor(source: &Source, wanted: Option<&String>) -> Result<Named> {
    let mut tensors = tensors(source, wanted.map_or(&[], std::slice::from_ref))?;
    if tensors.len() > 1 {
        let names: Vec<String> = tensors.into_iter().filter_map(|named| named.name).collect();
        let failure = Failure::usage(format!("{source} holds {} tensors", names.len()));
        return Err(failure.hint(format!("choose one with --tensor: {}", list(&names))));
    }
    Ok(tensors.remove(0))
}

/// Names for people: not more than a dozen.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// A file of several tensors.
enum Archive<'a> {
    Npz(Box<NpzArchive<Cursor<&'a [u8]>>>),
    Safetensors(SafeTensors<'a>),
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        if bytes.starts_with(ZIP) {
            let archive = NpzArchive::new(Cursor::new(bytes));
            let archive = archive.map_err(|error| Failure::data("not a whole .npz file").because(error))?;
            return Ok(Self::Npz(Box::new(archive)));
        }
        if bytes.starts_with(&MAGIC) {
            return Err(
                Failure::data("this is a frame, not a tensor").hint("`narrows decode` makes a tensor of it")
            );
        }
        // Eight bytes of length, then a JSON object.
        if bytes.get(8) == Some(&b'{') {
            let file = SafeTensors::deserialize(bytes);
            let file = file.map_err(|error| Failure::data("not a whole .safetensors file").because(error))?;
            return Ok(Self::Safetensors(file));
        }
        let failure = Failure::data(if bytes.is_empty() { "it is empty" } else { "not a file of tensors" });
        Err(failure.hint("narrows reads .npy, .npz and .safetensors"))
    }

    /// Sorted, so that two runs do the same.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Npz(archive) => archive.array_names().map(str::to_owned).collect(),
            Self::Safetensors(file) => file.names().into_iter().map(str::to_owned).collect(),
        };
        names.sort_unstable();
        names
    }

    fn tensor(&mut self, name: &str) -> Result<Tensor> {
        match self {
            Self::Npz(archive) => {
                let file = archive.zip_archive().by_name(&npyz::npz::file_name_from_array_name(name));
                let mut file = file.map_err(|error| Failure::data("not a whole .npz file").because(error))?;
                read_npy(&mut file)
            }
            Self::Safetensors(file) => {
                let view = file.tensor(name).expect("the name comes from this file");
                let dims = view.shape();
                match view.dtype() {
                    safetensors::Dtype::F32 => whole(elements::<f32>(view.data(), ByteOrder::Little), dims),
                    safetensors::Dtype::F16 => whole(elements::<f16>(view.data(), ByteOrder::Little), dims),
                    safetensors::Dtype::BF16 => whole(elements::<bf16>(view.data(), ByteOrder::Little), dims),
                    other => Err(Failure::data(format!("its elements are {other}")).hint(TO_FLOAT)),
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

/// An array in `.npy` format: either byte order, either order of axes.
fn read_npy(reader: &mut impl Read) -> Result<Tensor> {
    let broken = |error: io::Error| Failure::data("not a whole .npy file").because(error);
    let header = NpyHeader::from_reader(&mut *reader).map_err(broken)?;
    let DType::Plain(kind) = header.dtype() else {
        return Err(Failure::data("its elements are records").hint(TO_FLOAT));
    };
    let kind = kind.to_string();
    let (order, dtype) = match kind.as_str() {
        "<f4" => (ByteOrder::Little, Dtype::F32),
        ">f4" => (ByteOrder::Big, Dtype::F32),
        "<f2" => (ByteOrder::Little, Dtype::F16),
        ">f2" => (ByteOrder::Big, Dtype::F16),
        _ => return Err(Failure::data(format!("its elements are {}", type_name(&kind))).hint(TO_FLOAT)),
    };
    let dims: Vec<usize> = header.shape().iter().map(|&length| length as usize).collect();
    let shape = shape(&dims)?;
    let expected = shape.elements() * dtype.size();
    let mut bytes = Vec::new();
    reader.take(expected as u64 + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() != expected {
        let what =
            if bytes.len() < expected { "ends before its elements do" } else { "goes on after its elements" };
        let cause = format!("{dtype} {shape} are {expected} bytes, and the file {what}");
        return Err(Failure::data("not a whole .npy file").because(cause));
    }
    let fortran = header.order() == Order::Fortran;
    match dtype {
        Dtype::F32 => ordered(elements::<f32>(&bytes, order), &dims, fortran),
        Dtype::F16 | Dtype::Bf16 => ordered(elements::<f16>(&bytes, order), &dims, fortran),
    }
}

/// What people call a `NumPy` type: `<i8` is `int64`.
fn type_name(kind: &str) -> String {
    let (letter, size) = kind.trim_start_matches(['<', '>', '|', '=']).split_at(1);
    let bits = size.parse().unwrap_or(0_u32).saturating_mul(8);
    match letter {
        "f" => format!("float{bits}"),
        "i" => format!("int{bits}"),
        "u" => format!("uint{bits}"),
        "c" => format!("complex{bits}"),
        "b" => "bool".to_owned(),
        "O" => "object".to_owned(),
        _ => format!("'{kind}'"),
    }
}

fn elements<T: Element>(bytes: &[u8], order: ByteOrder) -> Vec<T> {
    let element = |chunk: &[u8]| {
        let mut bits = [0; 4];
        bits[..chunk.len()].copy_from_slice(chunk);
        if order == ByteOrder::Big {
            bits[..chunk.len()].reverse();
        }
        T::from_bits(u32::from_le_bytes(bits))
    };
    bytes.chunks_exact(T::DTYPE.size()).map(element).collect()
}

fn shape(dims: &[usize]) -> Result<Shape> {
    Shape::new(dims).map_err(|error| {
        let failure = Failure::codec("not a shape that narrows takes", &error);
        if dims.is_empty() { failure.or_hint("give a single number one axis: x.reshape(1)") } else { failure }
    })
}

fn whole<T: Element>(elements: Vec<T>, dims: &[usize]) -> Result<Tensor> {
    shape(dims)?;
    Tensor::new(elements, dims).map_err(|error| Failure::codec("not a whole tensor", &error))
}

fn ordered<T: Element>(elements: Vec<T>, dims: &[usize], fortran: bool) -> Result<Tensor> {
    if !fortran || elements.is_empty() {
        return whole(elements, dims);
    }
    let strides: Vec<usize> =
        dims.iter().scan(1, |next, &length| Some(std::mem::replace(next, *next * length))).collect();
    let view = TensorView::with_strides(&elements, dims, &strides);
    Ok(view.map_err(|error| Failure::codec("not a whole tensor", &error))?.to_tensor())
}
