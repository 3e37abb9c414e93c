//! Looks for keys in a process' memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::keys::Keys;
use crate::tools;

/// A part of a process' memory.
struct Region {
    start: u64,
    end: u64,
    /// Locked, and left out of core dumps.
    is_slab: bool,
    name: String,
}

/// Copies of keys, by where they lie.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In locked memory that core dumps leave out.
    pub in_slab: usize,
    /// Anywhere else: which key of those asked for, and in what.
    pub elsewhere: Vec<(usize, String)>,
}

/// W and all data keys of a keyset under a root key in a file.
pub fn secrets(keys: &Keys, name: &str) -> Vec<Vec<u8>> {
    let mut python = tools::python();
    python.arg(tools::top().join("tests/second_reader.py")).arg("secrets");
    python.arg(keys.folder().join("root.key")).arg(keys.folder().join(format!("keys/{name}.json"))).arg(name);
    tools::run(&mut python).lines().map(unhex).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Looks for keys in everything that a process can write.
pub fn look(process: u32, keys: &[Vec<u8>]) -> Found {
    let mut found = Found::default();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    for region in regions(process) {
        let mut bytes = vec![0; usize::try_from(region.end - region.start).unwrap()];
        // Some, such as [vvar], cannot be read.
        let Ok(read) = memory.read_at(&mut bytes, region.start) else { continue };
        for (number, key) in keys.iter().enumerate() {
            let copies = memchr::memmem::find_iter(&bytes[..read], key).count();
            match region.is_slab {
                true => found.in_slab += copies,
                false => found.elsewhere.extend((0..copies).map(|_| (number, region.name.clone()))),
            }
        }
    }
    found
}

fn regions(process: u32) -> Vec<Region> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let mut regions: Vec<Region> = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag: &str| flags.split_whitespace().any(|found| found == flag);
            if let Some(region) = regions.last_mut() {
                region.is_slab = has("dd") && has("lo");
                // What it cannot write holds no key.
                if !has("wr") {
                    regions.pop();
                }
            }
        } else if let Some((range, rest)) = line.split_once(' ').filter(|(range, _)| range.contains('-')) {
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
            let name = rest.split_whitespace().nth(4).unwrap_or("anonymous").to_owned();
            regions.push(Region { start, end, is_slab: false, name });
        }
    }
    regions
}

/// Lets a process die as a crash would, and returns its core dump. It must have been started so that it may, in that folder.
pub fn core(folder: &std::path::Path, process: u32) -> Vec<u8> {
    tools::run(Command::new("kill").args(["-ABRT", &process.to_string()]));
    tools::until("a core dump", || {
        let file = std::fs::read_dir(folder).unwrap().flatten().find(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.starts_with("core") && !std::path::Path::new(&format!("/proc/{process}/exe")).exists()
        });
        file.map(|file| std::fs::read(file.path()).unwrap())
    })
}
