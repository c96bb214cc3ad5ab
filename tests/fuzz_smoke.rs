//! A short fuzz on a stable toolchain: mutated models and archives, deterministic, for `MADD_PROF_FUZZ_SECONDS` (2 by default).
//!
//! `fuzz/` has the coverage-guided version. A failure prints the seed; `MADD_PROF_FUZZ_SEED` replays it.

use bytes::Bytes;
use madd_prof::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, Lenient, ModelProto, NodeProto, TensorProto, TypeProto,
};
use madd_prof::onnx::{read_bytes, write};
use madd_prof::ops::spec::{GraphSpec, ModelSpec, NodeSpec};
use madd_prof::tensor::{DType, Tensor, npz};
use prost::Message;
use std::io::Cursor;
use std::time::{Duration, Instant};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// What fuzzers do: flips, interesting values, and pieces removed, repeated or taken from another seed.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        if bytes.is_empty() {
            bytes.push(random.next() as u8);
        }
        let at = random.below(bytes.len());
        let span = random.below(32.min(bytes.len() - at)) + 1;
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => drop(bytes.drain(at..at + span)),
            4 => {
                let piece = bytes[at..at + span].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            5 => {
                let from = random.below(other.len());
                let piece = other[from..(from + span).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            // A huge length or dim.
            _ => drop(bytes.splice(at..at, [0xff; 9].into_iter().chain([1]))),
        }
    }
}

fn models() -> Vec<Vec<u8>> {
    let b = |s: &'static str| Bytes::from_static(s.as_bytes());
    let tensor = |code: i32| {
        let name = b("w");
        Lenient(TensorProto {
            dims: vec![2, 3],
            data_type: Some(code),
            name,
            raw_data: Some(vec![1; 24].into()),
            ..Default::default()
        })
    };
    let typed =
        TensorProto { dims: vec![3], data_type: Some(7), int64_data: vec![b("\x01\x02\x03")], ..Default::default() };
    let attribute = AttributeProto {
        name: b("then_branch"),
        t: Some(Box::new(Lenient(typed))),
        g: Some(Box::new(GraphProto { initializer: vec![tensor(1)], ..Default::default() })),
        tp: Some(Box::new(TypeProto::default())),
        ints: vec![1, -1],
        ..Default::default()
    };
    let call =
        NodeProto { op_type: b("F"), domain: b("f"), input: vec![b("x")], output: vec![b("y")], ..Default::default() };
    let inner = NodeProto {
        op_type: b("If"),
        input: vec![b("a")],
        output: vec![b("c")],
        attribute: vec![attribute.encode_to_vec().into()],
        ..Default::default()
    };
    let function = FunctionProto {
        name: b("F"),
        domain: b("f"),
        input: vec![b("a")],
        output: vec![b("c")],
        node: vec![inner.encode_to_vec().into()],
        ..Default::default()
    };
    let call = Bytes::from(call.encode_to_vec());
    let graph =
        GraphProto { node: vec![call.clone(), call], initializer: vec![tensor(6), tensor(99)], ..Default::default() };
    let with_functions =
        ModelProto { graph: Some(graph), functions: vec![function], ..Default::default() }.encode_to_vec();
    let mut graph = GraphSpec::default();
    for &d in DType::ALL.iter().filter(|&&d| d != DType::Str) {
        graph.initializers.push((d.name().to_string(), Tensor::zeros(d, &[2, 2]).unwrap()));
    }
    graph.nodes.push(NodeSpec {
        op_type: "Relu".into(),
        inputs: vec!["a".into()],
        outputs: vec!["b".into()],
        ..NodeSpec::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    write(&ModelSpec { graph, ..ModelSpec::default() }, &path, None).unwrap();
    vec![with_functions, std::fs::read(&path).unwrap()]
}

fn archive() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npz");
    let (a, b) = (Tensor::zeros(DType::F32, &[2, 3]).unwrap(), Tensor::zeros(DType::Str, &[2]).unwrap());
    npz::write(&path, [("a", &a), ("b", &b)]).unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn no_input_makes_a_reader_panic() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let until = Instant::now() + Duration::from_secs(setting("MADD_PROF_FUZZ_SECONDS").unwrap_or(2));
    let first = setting("MADD_PROF_FUZZ_SEED").unwrap_or(1);
    let (models, archive) = (models(), archive());
    let npy = archive[archive.windows(6).position(|w| w == b"\x93NUMPY").unwrap()..].to_vec();
    let seeds = [&models[0], &models[1], &archive, &npy];
    let mut slowest = (Duration::ZERO, 0);
    for seed in first.. {
        let begin = Instant::now();
        if begin > until {
            break;
        }
        let mut random = Random(seed);
        let which = random.below(seeds.len());
        let mut bytes = seeds[which].clone();
        mutate(&mut bytes, seeds[random.below(seeds.len())], &mut random);
        let outcome = std::panic::catch_unwind(|| match which {
            0 | 1 => drop(read_bytes(bytes.into(), None)),
            2 => drop(npz::read_from(Cursor::new(&bytes))),
            _ => drop(npz::read_npy(&mut Cursor::new(&bytes))),
        });
        assert!(outcome.is_ok(), "replay with MADD_PROF_FUZZ_SEED={seed}");
        slowest = slowest.max((begin.elapsed(), seed));
    }
    assert!(slowest.0 < Duration::from_secs(5), "seed {} took {:?}", slowest.1, slowest.0);
}
