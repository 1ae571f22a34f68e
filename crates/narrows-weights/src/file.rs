//! Packed files: valid safetensors whose U8 tensors are packed tensors (`docs/format.md`, section 14).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use narrows::machine::checksum;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as Stored, Metadata};

use crate::data::Data;
use crate::error::{Error, Result};
use crate::frame;
use crate::lossless;
use crate::matrix::Matrix;

/// The version of packed files that is written.
pub const FILE_VERSION: u64 = 1;
const VERSION_KEY: &str = "narrows";
const CHECK_KEY: &str = "narrows.check";
const TENSORS_KEY: &str = "narrows.tensors";
const NO_CHECK: &str = "00000000";

/// A tensor of a packed file.
#[derive(Debug)]
pub enum Tensor {
    /// Bins of a grid, coded.
    Packed(Box<Matrix>),
    /// Every bit of a float tensor: a frame of the codec, or several of its rows.
    Lossless(Data),
    /// As it was.
    Plain(Plain),
}

/// A tensor that is stored as it is: any element type that safetensors know.
#[derive(Clone, Debug)]
pub struct Plain {
    /// Its element type.
    pub dtype: Stored,
    /// Its axes.
    pub shape: Vec<usize>,
    /// Its elements, little-endian.
    pub data: Data,
}

/// Map a file into memory.
#[allow(unsafe_code, reason = "memory mapping")]
pub(crate) fn map(path: &Path) -> Result<Data> {
    let failed = |what| move |source| Error::Io { what, path: path.to_owned(), source };
    let file = File::open(path).map_err(failed("open"))?;
    let length = file.metadata().map_err(failed("open"))?.len();
    if length == 0 {
        return Ok(Data::from(Vec::new()));
    }
    // SAFETY: the mapping is read-only and private to `Data`, which hands out shared slices only. That nobody truncates or
    // writes the file while it is mapped is asked of callers, as by every reader of mapped checkpoints; files written
    // by this crate are replaced by renaming and never changed in place.
    let map = unsafe { Mmap::map(&file) }.map_err(failed("map"))?;
    Ok(Data::new(map))
}

/// A packed file, mapped into memory.
///
/// Opening it reads its header alone; a tensor's bytes are read, and its checksum verified, when it is asked for. The file
/// must not be changed in place while it is open; [`Writer`] replaces it as a whole.
#[derive(Debug)]
pub struct PackedFile {
    data: Data,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: usize,
    /// What the header says of each tensor, in the order of their bytes.
    notes: HashMap<String, String>,
}

impl PackedFile {
    /// Open a packed file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Container`] if it is not a safetensors file, or not of packed weights;
    /// [`Error::Checksum`] if its header was changed; [`Error::UnsupportedVersion`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::read(map(path.as_ref())?)
    }

    /// A packed file that is in memory.
    ///
    /// # Errors
    /// As [`PackedFile::open`].
    pub fn read(data: impl Into<Data>) -> Result<Self> {
        let data = data.into();
        let (start, metadata) = read_metadata(&data)?;
        let texts = metadata.metadata().clone().unwrap_or_default();
        let text = |key: &str| {
            texts
                .get(key)
                .ok_or_else(|| Error::container(format!("not a file of packed weights: no metadata `{key}`")))
        };
        let version = text(VERSION_KEY)?;
        let found: u64 =
            version.parse().map_err(|_| Error::container(format!("version `{version}` is not a number")))?;
        if found != FILE_VERSION {
            return Err(Error::UnsupportedVersion { found, supported: FILE_VERSION });
        }
        check_header(&data[..start], text(CHECK_KEY)?)?;
        let notes: Vec<&str> = text(TENSORS_KEY)?.split_whitespace().collect();
        let names = metadata.offset_keys();
        if notes.len() != names.len() {
            let what = format!(
                "metadata `{TENSORS_KEY}` tell of {} tensors, there are {}",
                notes.len(),
                names.len()
            );
            return Err(Error::container(what));
        }
        let notes = names.into_iter().zip(notes.into_iter().map(str::to_owned)).collect();
        Ok(Self { data, metadata, start, notes })
    }

    /// Whether these bytes, a file's first or all of them, are a packed file's, whole or not.
    pub fn is_one(bytes: &[u8]) -> bool {
        read_metadata(bytes).is_ok_and(|(_, metadata)| {
            metadata.metadata().as_ref().is_some_and(|texts| texts.contains_key(VERSION_KEY))
        })
    }

    /// The names of all tensors, in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// What the writer's caller left in the metadata.
    pub fn texts(&self) -> HashMap<String, String> {
        let mut texts = self.metadata.metadata().clone().unwrap_or_default();
        texts.retain(|key, _| ![VERSION_KEY, CHECK_KEY, TENSORS_KEY].contains(&key.as_str()));
        texts
    }

    /// Bytes of the whole file, and of its header.
    pub fn bytes(&self) -> (usize, usize) {
        (self.data.len(), self.start)
    }

    /// Bytes of a tensor, as stored.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn stored(&self, name: &str) -> Result<Data> {
        let info = self.metadata.info(name).ok_or_else(|| Error::NoSuchTensor { name: name.to_owned() })?;
        Ok(self.data.part(self.start + info.data_offsets.0..self.start + info.data_offsets.1))
    }

    /// A tensor; its checksum is verified.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::InTensor`] for one that was changed.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let data = self.stored(name)?;
        self.tensor_of(name, data).map_err(|error| error.in_tensor(name))
    }

    fn tensor_of(&self, name: &str, data: Data) -> Result<Tensor> {
        let info = self.metadata.info(name).expect("it is stored");
        let note = &self.notes[name];
        if let Some(stored) = note.strip_prefix('#') {
            let stored = u32::from_str_radix(stored, 16)
                .map_err(|_| Error::container(format!("`{note}` is not a checksum")))?;
            let computed = checksum(&data);
            if stored != computed {
                return Err(Error::Checksum { what: "elements", stored, computed });
            }
            return Ok(Tensor::Plain(Plain { dtype: info.dtype, shape: info.shape.clone(), data }));
        }
        if lossless::is_one(&data) {
            lossless::described(&data)?;
            return Ok(Tensor::Lossless(data));
        }
        Ok(Tensor::Packed(Box::new(Matrix::read(data)?)))
    }

    /// A packed tensor as a matrix.
    ///
    /// # Errors
    /// As [`PackedFile::tensor`], and [`Error::InTensor`] if it is stored in another way.
    pub fn matrix(&self, name: &str) -> Result<Matrix> {
        match self.tensor(name)? {
            Tensor::Packed(matrix) => Ok(*matrix),
            _ => Err(Error::container("it is not packed").in_tensor(name)),
        }
    }
}

/// Where tensors begin, and what the header of a safetensors file says of them.
pub(crate) fn read_metadata(bytes: &[u8]) -> Result<(usize, Metadata)> {
    let (length, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| Error::container(format!("not a whole .safetensors file: {error}")))?;
    Ok((length + 8, metadata))
}

/// The checksum of a header covers all of it but its own digits, which count as zeros.
fn check_header(header: &[u8], digits: &str) -> Result<()> {
    let wrong = || Error::container(format!("metadata `{CHECK_KEY}` is not a checksum"));
    let stored = u32::from_str_radix(digits, 16).map_err(|_| wrong())?;
    let field = format!("\"{CHECK_KEY}\":\"{digits}\"");
    let at = header.windows(field.len()).position(|window| window == field.as_bytes()).ok_or_else(wrong)?;
    if digits != format!("{stored:08x}") {
        return Err(wrong());
    }
    let mut blank = header.to_vec();
    let end = at + field.len() - 1;
    blank[end - NO_CHECK.len()..end].copy_from_slice(NO_CHECK.as_bytes());
    let computed = checksum(&blank);
    if stored == computed { Ok(()) } else { Err(Error::Checksum { what: "header", stored, computed }) }
}

struct Entry {
    name: String,
    dtype: Stored,
    shape: Vec<usize>,
    bytes: u64,
    note: String,
}

/// Tensors with elements of one size, on their way to a file.
struct Spool {
    /// None where bytes are only counted.
    file: Option<BufWriter<File>>,
    entries: Vec<Entry>,
}

/// A tensor on its way to a file.
pub struct Stream<'a> {
    spool: &'a mut Spool,
    entry: Entry,
    path: PathBuf,
}

impl Stream<'_> {
    /// Write the next of its bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.entry.bytes += bytes.len() as u64;
        let failed = |source| Error::Io { what: "write beside", path: self.path.clone(), source };
        self.spool.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes)).map_err(failed)
    }

    /// That was all of it.
    ///
    /// # Errors
    /// [`Error::Shape`] if there were not as many bytes as its shape says.
    pub fn end(self) -> Result<()> {
        let bits = self.entry.shape.iter().product::<usize>() * self.entry.dtype.bitsize();
        let value = self.entry.bytes as usize;
        if value * 8 != bits {
            return Err(Error::Shape { what: "bytes of a tensor", value, bound: bits / 8 });
        }
        self.spool.entries.push(self.entry);
        Ok(())
    }
}

/// Writes a packed file tensor by tensor; memory holds one at a time.
///
/// Nothing appears at the destination before [`Writer::finish`] has everything on the disk: killed at any moment, it leaves
/// the file that was there, or the whole new one.
pub struct Writer {
    path: PathBuf,
    /// Tensors whose elements have 8, 4, 2 and 1 bytes: in this order, all are aligned.
    spools: [Option<Spool>; 4],
    /// Whether the file is one of packed weights, and says so.
    packed: bool,
    /// Whether bytes are only counted.
    counting: bool,
}

impl Writer {
    /// A writer of the file `path`, in whose folder it keeps temporary files.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // A link stays one; what it points to is replaced.
        Self {
            path: path.canonicalize().unwrap_or(path),
            spools: [const { None }; 4],
            packed: true,
            counting: false,
        }
    }

    /// One that counts the bytes of a file and writes none.
    pub(crate) fn counting() -> Self {
        Self { path: PathBuf::new(), spools: [const { None }; 4], packed: true, counting: true }
    }

    /// The same for a plain safetensors file, of which [`Writer::stream`] makes the tensors.
    pub fn dense(path: impl Into<PathBuf>) -> Self {
        Self { packed: false, ..Self::new(path) }
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Io { what, path: path.clone(), source }
    }

    fn spool(&mut self, dtype: Stored) -> Result<&mut Spool> {
        let class = match dtype.bitsize() {
            64.. => 0,
            32.. => 1,
            16.. => 2,
            _ => 3,
        };
        if self.spools[class].is_none() {
            let spooled = || tempfile::tempfile_in(self.folder()).map_err(self.failed("write beside"));
            let file = if self.counting { None } else { Some(BufWriter::new(spooled()?)) };
            self.spools[class] = Some(Spool { file, entries: Vec::new() });
        }
        Ok(self.spools[class].as_mut().expect("made above"))
    }

    /// Add a tensor as it is, a part at a time.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stream(&mut self, name: &str, dtype: Stored, shape: &[usize]) -> Result<Stream<'_>> {
        let path = self.path.clone();
        let entry =
            Entry { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes: 0, note: String::new() };
        Ok(Stream { spool: self.spool(dtype)?, entry, path })
    }

    /// Add a packed tensor, as [`pack`](crate::pack) makes it.
    ///
    /// # Errors
    /// As [`Matrix::read`], and [`Error::Io`].
    pub fn packed(&mut self, name: &str, packed: &[u8]) -> Result<()> {
        let (header, _) = frame::Header::read(packed)?;
        let layout = crate::Layout::of(&header, &[], packed);
        let mut note = note(header.dtype.name(), header.shape.dims());
        if let (Some(states), Some(lanes)) = (layout.states, layout.lanes) {
            let _ = write!(note, ":{states}x{lanes}");
        }
        self.add_bytes(name, packed, note)
    }

    /// Add a tensor without loss: a frame of the codec, or several of its rows.
    ///
    /// # Errors
    /// As [`narrows::peek`], and [`Error::Io`].
    pub fn lossless(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (dtype, dims) = lossless::described(bytes)?;
        self.add_bytes(name, bytes, note(dtype.name(), &dims))
    }

    fn add_bytes(&mut self, name: &str, data: &[u8], note: String) -> Result<()> {
        let mut stream = self.stream(name, Stored::U8, &[data.len()])?;
        stream.write(data)?;
        stream.entry.note = note;
        stream.end()
    }

    /// Add a tensor as it is.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Shape`] for bytes that are not those of the shape.
    pub fn plain(&mut self, name: &str, dtype: Stored, shape: &[usize], data: &[u8]) -> Result<()> {
        let mut stream = self.stream(name, dtype, shape)?;
        stream.write(data)?;
        stream.entry.note = format!("#{:08x}", checksum(data));
        stream.end()
    }

    /// Bytes of the file with these metadata.
    ///
    /// # Errors
    /// As [`Writer::finish`], of names.
    pub(crate) fn bytes(&self, texts: &HashMap<String, String>) -> Result<u64> {
        let tensors = self.spools.iter().flatten().flat_map(|spool| &spool.entries).map(|entry| entry.bytes);
        Ok(self.header(texts)?.len() as u64 + tensors.sum::<u64>())
    }

    /// Write the file, with these metadata; returns its bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Container`] for two tensors of one name.
    pub fn finish(mut self, texts: &HashMap<String, String>) -> Result<u64> {
        let failed = self.failed("write");
        let header = self.header(texts)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".narrows-").suffix(".part");
        #[cfg(unix)]
        {
            // As any file that a program makes; the system takes off what the user does not want.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(self.folder()).map_err(&failed)?;
        let mut bytes = header.len() as u64;
        file.write_all(&header).map_err(&failed)?;
        for spool in self.spools.iter_mut().flatten().filter_map(|spool| spool.file.as_mut()) {
            spool.flush().map_err(&failed)?;
            let spooled = spool.get_mut();
            spooled.rewind().map_err(&failed)?;
            bytes += io::copy(spooled, file.as_file_mut()).map_err(&failed)?;
        }
        file.as_file().sync_all().map_err(&failed)?;
        file.persist(&self.path).map_err(|error| failed(error.error))?;
        // That the new name itself is on the disk; systems that do not sync folders have nothing to add.
        if let Ok(folder) = File::open(self.folder()) {
            let _ = folder.sync_all();
        }
        Ok(bytes)
    }

    fn header(&self, texts: &HashMap<String, String>) -> Result<Vec<u8>> {
        let entries = || self.spools.iter().flatten().flat_map(|spool| &spool.entries);
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = entries().find(|entry| !names.insert(&entry.name)) {
            return Err(Error::container(format!("two tensors are called {}", twice.name)));
        }
        let notes: Vec<&str> = entries().map(|entry| entry.note.as_str()).collect();
        let json = |text: &str| serde_json::to_string(text).expect("strings are JSON");
        let mut all = Vec::new();
        if self.packed {
            all.push((VERSION_KEY, FILE_VERSION.to_string()));
            all.push((CHECK_KEY, NO_CHECK.to_owned()));
            all.push((TENSORS_KEY, notes.join(" ")));
        }
        let mut texts: Vec<(&str, String)> =
            texts.iter().map(|(key, text)| (key.as_str(), text.clone())).collect();
        texts.sort_unstable();
        all.extend(texts);
        let all: Vec<String> =
            all.iter().map(|(key, text)| format!("{}:{}", json(key), json(text))).collect();
        let mut text = format!("{{\"__metadata__\":{{{}}}", all.join(","));
        let mut offset = 0;
        for entry in entries() {
            let dtype = serde_json::to_string(&entry.dtype).expect("types have names");
            let shape: Vec<String> = entry.shape.iter().map(usize::to_string).collect();
            let (name, shape, end) = (json(&entry.name), shape.join(","), offset + entry.bytes);
            let _ = write!(
                text,
                ",{name}:{{\"dtype\":{dtype},\"shape\":[{shape}],\"data_offsets\":[{offset},{end}]}}"
            );
            offset = end;
        }
        text.push('}');
        while text.len() % 8 > 0 {
            text.push(' ');
        }
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text.as_bytes());
        if self.packed {
            let digits = format!("{:08x}", checksum(&header));
            let field = format!("\"{CHECK_KEY}\":\"");
            let at = 8 + text.find(&field).expect("it is there") + field.len();
            header[at..at + digits.len()].copy_from_slice(digits.as_bytes());
        }
        Ok(header)
    }
}

/// What readers see of a packed tensor: its type and shape.
fn note(dtype: &str, dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("{dtype}[{}]", dims.join(","))
}
