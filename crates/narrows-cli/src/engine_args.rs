//! Options of every command that runs a model: the engine, sizes of open dimensions, inputs from a file.

use std::io::{Cursor, Read};
use std::path::Path;

use narrows_split::{Data, ElementType, Engine, Model, Port, Runtime, Sizes, Value};
use npyz::npz::NpzArchive;
use npyz::{DType, NpyHeader, Order};

use crate::failure::{Failure, Result};

#[derive(clap::Args, Clone, Debug)]
pub struct EngineArgs {
    /// What runs the model: tract, onnxruntime (rewrites that keep every bit) or onnxruntime-all (every rewrite)
    #[arg(long, value_name = "ENGINE", default_value = "tract", value_parser = engine)]
    pub engine: Runtime,
    /// The size of a dimension that the model leaves open, such as batch=4 [default: 1 for a batch, else 16]
    #[arg(long, value_name = "NAME=SIZE", value_parser = dimension)]
    dim: Vec<(String, usize)>,
}

impl EngineArgs {
    /// Sizes of open dimensions.
    pub fn sizes(&self) -> Sizes {
        self.dim.iter().fold(Sizes::default(), |sizes, (symbol, size)| sizes.with(symbol, *size))
    }

    /// A model ready to run; `name` tells people which.
    pub fn load(&self, model: &Model, name: &str) -> Result<Engine> {
        Engine::load_on(model, self.engine)
            .map_err(|error| Failure::model(format!("cannot run {name}"), &error))
    }
}

/// An engine by its name.
pub fn engine(name: &str) -> Result<Runtime, String> {
    let names = Runtime::NAMES.map(|(name, _)| name).join(", ");
    name.parse().map_err(|_| format!("the engines are {names}"))
}

fn dimension(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("it must be NAME=SIZE")?;
    let size: usize = size.parse().map_err(|_| format!("`{size}` is not a number of elements"))?;
    Ok((name.to_owned(), size))
}

/// Tensors for the inputs of a model from a file: an `.npz` archive that has an array for each by name, or for a
/// model of one input an `.npy` file.
pub fn read_inputs(path: &Path, ports: &[Port]) -> Result<Vec<Value>> {
    let bytes = std::fs::read(path).map_err(|error| Failure::io("read", path, &error))?;
    let in_file = |failure: Failure| failure.in_file(&path.display());
    if bytes.starts_with(b"\x93NUMPY") {
        let [port] = ports else {
            let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
            let failure = Failure::usage(format!(
                "{} is one array, and the model has {} inputs",
                path.display(),
                ports.len()
            ));
            return Err(failure.hint(format!("make an .npz archive with the arrays {}", names.join(", "))));
        };
        return Ok(vec![read_array(&mut Cursor::new(&bytes), port).map_err(in_file)?]);
    }
    let broken = |error| Failure::data("neither an .npy file nor a whole .npz archive").because(error);
    let mut archive = NpzArchive::new(Cursor::new(bytes.as_slice())).map_err(broken).map_err(in_file)?;
    let array = |port: &Port| {
        let member = archive.zip_archive().by_name(&format!("{}.npy", port.name));
        let mut member = member.map_err(|_| {
            Failure::data(format!("{} has no array for the input {}", path.display(), port.name))
        })?;
        read_array(&mut member, port).map_err(in_file)
    };
    ports.iter().map(array).collect()
}

/// An array as an input takes it.
fn read_array(reader: &mut impl Read, port: &Port) -> Result<Value> {
    let broken = |error: std::io::Error| Failure::data("not a whole .npy file").because(error);
    let header = NpyHeader::from_reader(&mut *reader).map_err(broken)?;
    let kind = match header.dtype() {
        DType::Plain(kind) if header.order() == Order::C => kind.to_string(),
        _ => "an array of records, or in Fortran order".to_owned(),
    };
    let expected = match port.element_type {
        ElementType::F32 => "<f4",
        ElementType::I64 => "<i8",
        ElementType::Bool => "|b1",
    };
    if kind != expected {
        let failure = Failure::data(format!("the input {} takes {}", port.name, port.element_type.name()));
        return Err(failure
            .because(format!("the array is {kind}, not {expected}"))
            .hint(format!("in Python: numpy.ascontiguousarray(x, dtype=\"{}\")", port.element_type.name())));
    }
    let shape: Vec<usize> = header.shape().iter().map(|&dim| dim as usize).collect();
    let elements = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let bytes = elements.and_then(|elements| elements.checked_mul(port.element_type.bytes()));
    let bytes = bytes.ok_or_else(|| Failure::data(format!("an array of {shape:?} is too large")))?;
    let mut data = Vec::new();
    reader.take(bytes as u64).read_to_end(&mut data).map_err(broken)?;
    if data.len() != bytes {
        return Err(Failure::data("not a whole .npy file").because("it ends before its elements do"));
    }
    let data: Data = match port.element_type {
        ElementType::F32 => data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect::<Vec<_>>()
            .into(),
        ElementType::I64 => {
            let number = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap_or([0; 8]));
            data.chunks_exact(8).map(number).collect::<Vec<_>>().into()
        }
        ElementType::Bool => data.iter().map(|&byte| byte != 0).collect::<Vec<_>>().into(),
    };
    Value::new(shape, data).map_err(|error| Failure::model("not a whole array", &error))
}
