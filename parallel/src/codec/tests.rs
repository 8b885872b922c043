//! Round trips, the format's bytes, and bytes that are no values.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Box {
        width: f32,
        corners: Vec<(i16, char)>,
    },
    Cloud(Vec<f64>, Option<Vec<u32>>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    small: (i8, u8, bool, ()),
    wide: (i128, u128, usize),
    text: String,
    lines: Vec<String>,
    map: BTreeMap<String, Vec<i64>>,
    shapes: Vec<Shape>,
    matrix: Vec<Vec<f64>>,
    fixed: [u16; 3],
    #[serde(serialize_with = "one_by_one")]
    odd: Vec<u32>,
}

/// A way of its own on one side only: the bytes have to be those of the short way.
fn one_by_one<S: serde::Serializer>(values: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeSeq;
    let mut sequence = serializer.serialize_seq(None)?;
    for value in values {
        sequence.serialize_element(value)?;
    }
    sequence.end()
}

fn there_and_back<T: Serialize + DeserializeOwned>(value: &T) -> T {
    decode(&encode(value).unwrap().into_vec()).unwrap()
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Nothing),
        any::<f64>().prop_map(Shape::Circle),
        (any::<f32>(), any::<Vec<(i16, char)>>())
            .prop_map(|(width, corners)| Shape::Box { width, corners }),
        (any::<Vec<f64>>(), any::<Option<Vec<u32>>>()).prop_map(|(a, b)| Shape::Cloud(a, b)),
    ]
}

proptest! {
    #[test]
    fn values_come_back(
        small: (i8, u8, bool, ()),
        wide: (i128, u128, usize),
        text: String,
        lines: Vec<String>,
        map: BTreeMap<String, Vec<i64>>,
        shapes in prop::collection::vec(shape(), 0..5),
        matrix: Vec<Vec<f64>>,
        fixed: [u16; 3],
        odd: Vec<u32>,
    ) {
        let value = Everything { small, wide, text, lines, map, shapes, matrix, fixed, odd };
        prop_assert_eq!(there_and_back(&value), value);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
        let _ = decode::<Everything>(&bytes);
        let _ = decode::<Vec<u64>>(&bytes);
        let _ = decode::<HashMap<String, Shape>>(&bytes);
    }
}

#[test]
fn cut_bytes_are_an_error() {
    let whole = encode(&(vec![1u64; 300], "text".to_owned()))
        .unwrap()
        .into_vec();
    for length in 0..whole.len() {
        let cut = decode::<(Vec<u64>, String)>(&whole[..length]);
        assert!(
            matches!(cut, Err(CodecError::Short { .. })),
            "{length}: {cut:?}"
        );
    }
}

#[test]
fn a_length_that_no_memory_holds_is_an_error() {
    let mut bytes = vec![LONG];
    bytes.extend(u64::MAX.to_le_bytes());
    assert!(decode::<Vec<u64>>(&bytes).is_err());
    assert!(decode::<Vec<u8>>(&bytes).is_err());
    assert!(decode::<Vec<String>>(&bytes).is_err());
    assert!(decode::<String>(&bytes).is_err());
}

#[test]
fn numbers_are_borrowed_and_lie_as_in_memory() {
    let values: Vec<u32> = (0..300).collect();
    let encoded = encode(&values).unwrap();
    assert_eq!(encoded.bulk.as_ptr(), values.as_ptr().cast());
    assert_eq!(encoded.head, [255, 44, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(encoded.len(), 9 + 1200);
    let slice = encode(&values[..7]).unwrap();
    assert_eq!(
        (slice.head.as_slice(), slice.bulk.len()),
        ([7].as_slice(), 28)
    );
    assert_eq!(decode::<Vec<u32>>(&encoded.into_vec()).unwrap(), values);
}

#[test]
fn from_any_alignment() {
    let mut bytes = vec![0];
    encode_into(&(1u8, vec![1.5f64, 2.5]), &mut bytes).unwrap();
    assert_eq!(
        decode::<(u8, Vec<f64>)>(&bytes[1..]).unwrap(),
        (1, vec![1.5, 2.5])
    );
}

#[test]
fn what_is_left_over_is_told() {
    assert_eq!(
        decode::<u16>(&[1, 2, 3]),
        Err(CodecError::Excess { excess: 1 })
    );
    assert_eq!(
        decode::<bool>(&[2]),
        Err(CodecError::Invalid { kind: "bool" })
    );
    assert_eq!(
        decode::<char>(&[0, 0xD8, 0, 0]),
        Err(CodecError::Invalid { kind: "char" })
    );
    assert_eq!(
        decode::<String>(&[1, 0xFF]),
        Err(CodecError::Invalid { kind: "text" })
    );
}

/// Three integers that serde sees one by one, of a vector's size: the size alone must not choose the short way.
#[test]
fn types_as_large_as_a_vector() {
    assert_eq!(there_and_back(&(1u64, 2u64, 3u64)), (1, 2, 3));
    assert_eq!(there_and_back(&[1u64, 2, 3]), [1, 2, 3]);
    assert_eq!(there_and_back(&"text".to_owned()), "text");
    assert_eq!(there_and_back(&vec![true, false]), [true, false]);
    assert_eq!(there_and_back(&vec![Some(1u8), None]), [Some(1), None]);
}

#[test]
fn numbers_can_be_taken_as_they_lie() {
    assert!(is_number::<f64>() && is_number::<u8>());
    assert!(!is_number::<bool>() && !is_number::<String>() && !is_number::<Vec<u8>>());
    for count in [0, 3, 1000] {
        let values: Vec<u32> = (0..count).collect();
        let mut bytes = encode(&values).unwrap().into_vec();
        let expected: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        assert_eq!(memory(&bytes, 4).unwrap(), expected);
        bytes.push(0);
        assert_eq!(memory(&bytes, 4), Err(CodecError::Excess { excess: 1 }));
        bytes.truncate(bytes.len() - 2);
        assert!(memory(&bytes, 4).is_err());
    }
    let endless = [255, 0, 0, 0, 0, 0, 0, 0, 255];
    let kind = "length";
    assert_eq!(memory(&endless, 16), Err(CodecError::Invalid { kind }));
    let room = room_for::<u64>(1 << 20);
    assert!(room.is_empty() && room.capacity() >= 1 << 20);
}

#[test]
fn what_has_no_fixed_shape_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct Gaps {
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<u8>,
        second: u8,
    }
    let gaps = |first| Gaps { first, second: 7 };
    let there = there_and_back_of(&gaps(Some(1))).unwrap();
    assert_eq!((there.first, there.second), (Some(1), 7));
    let refused = encode(&vec![gaps(None)]).map(drop);
    assert_eq!(refused, Err(CodecError::Skipped { field: "first" }));

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
    }
    let refused = there_and_back_of(&Either::Number(1)).unwrap_err();
    assert_eq!(refused, CodecError::NotSelfDescribing);
}

fn there_and_back_of<T: Serialize + serde::de::DeserializeOwned>(
    value: &T,
) -> Result<T, CodecError> {
    decode(&encode(value)?.into_vec())
}
