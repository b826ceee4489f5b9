//! Reads what the scripts return. Anything else is `None` or [`NoAnswer`]: the store may contain what others wrote, and may
//! be no such store at all.

use std::time::Duration;

use redis::Value;

use crate::shared_store::{Acquired, GenerationId, StoredValue, Taken};

pub(super) fn acquired(reply: Value) -> Option<Acquired> {
    let mut items = array(reply)?;
    match items.next()? {
        Value::Int(0) => end(items).map(|()| Acquired::Held),
        Value::Int(1) => end(items).map(|()| Acquired::Granted),
        Value::Int(2) => stored(items).map(Acquired::Value),
        _ => None,
    }
}

/// Something that is no answer to what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoAnswer;

pub(super) fn read(reply: Value) -> Result<Option<StoredValue>, NoAnswer> {
    match reply {
        Value::Nil => Ok(None),
        reply => array(reply).and_then(stored).map(Some).ok_or(NoAnswer),
    }
}

pub(super) fn flag(reply: &Value) -> Option<bool> {
    match reply {
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        _ => None,
    }
}

pub(super) fn taken(reply: Value, wanted: u64) -> Option<Taken> {
    let mut items = array(reply)?;
    let granted = number(&items.next()?)?;
    let retry_after = Duration::from_micros(number(&items.next()?)?);
    end(items)?;
    (granted <= wanted).then_some(Taken {
        granted,
        retry_after,
    })
}

/// The host and port of a master, as Sentinels name it; `None` if they know none.
pub(super) fn master(reply: Value) -> Result<Option<(String, u16)>, NoAnswer> {
    match reply {
        Value::Nil => Ok(None),
        reply => address(reply).map(Some).ok_or(NoAnswer),
    }
}

fn address(reply: Value) -> Option<(String, u16)> {
    let mut items = array(reply)?;
    let host = String::from_utf8(bytes(items.next()?)?).ok()?;
    let port = String::from_utf8(bytes(items.next()?)?).ok()?;
    end(items)?;
    Some((host, port.parse().ok()?))
}

type Items = std::vec::IntoIter<Value>;

fn array(reply: Value) -> Option<Items> {
    match reply {
        Value::Array(items) => Some(items.into_iter()),
        _ => None,
    }
}

fn stored(mut items: Items) -> Option<StoredValue> {
    let generation = GenerationId(bytes(items.next()?)?.try_into().ok()?);
    let sealed = bytes(items.next()?)?;
    let ttl = Duration::from_millis(number(&items.next()?)?);
    end(items)?;
    Some(StoredValue {
        generation,
        sealed,
        ttl,
    })
}

fn bytes(item: Value) -> Option<Vec<u8>> {
    match item {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn number(item: &Value) -> Option<u64> {
    match item {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn end(mut items: Items) -> Option<()> {
    items.next().is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn value(generation: &[u8], ttl: i64) -> Vec<Value> {
        vec![bulk(generation), bulk(b"sealed"), Value::Int(ttl)]
    }

    fn with_tag(mut items: Vec<Value>) -> Value {
        items.insert(0, Value::Int(2));
        Value::Array(items)
    }

    #[test]
    fn answers_of_the_scripts() {
        let found = read(Value::Array(value(&[7; 16], 5))).unwrap().unwrap();
        assert_eq!(found.generation, GenerationId([7; 16]));
        assert_eq!(
            (&*found.sealed, found.ttl),
            (&b"sealed"[..], Duration::from_millis(5))
        );
        assert!(read(Value::Nil).unwrap().is_none());
        let answer = acquired(with_tag(value(&[7; 16], 5)));
        assert!(matches!(answer, Some(Acquired::Value(_))));
        let answer = acquired(Value::Array(vec![Value::Int(1)]));
        assert!(matches!(answer, Some(Acquired::Granted)));
        let answer = acquired(Value::Array(vec![Value::Int(0)]));
        assert!(matches!(answer, Some(Acquired::Held)));
        let answer = taken(Value::Array(vec![Value::Int(2), Value::Int(7)]), 2);
        assert_eq!(answer.unwrap().retry_after, Duration::from_micros(7));
        let answer = master(Value::Array(vec![bulk(b"10.0.0.1"), bulk(b"6379")]));
        assert_eq!(answer, Ok(Some(("10.0.0.1".into(), 6379))));
        assert_eq!(master(Value::Nil), Ok(None));
    }

    /// Each of these is no answer to any script that returns an array.
    #[test]
    fn garbage_is_no_answer() {
        let huge = Value::Array(vec![Value::Int(1); 100_000]);
        let nested = (0..90).fold(Value::Nil, |inner, _| Value::Array(vec![inner]));
        let mut all = vec![
            Value::Okay,
            Value::Int(-1),
            Value::Int(2),
            Value::Boolean(true),
            Value::Double(f64::NAN),
            Value::Double(1.0),
            Value::SimpleString("0".into()),
            bulk(b"\xff\xfe"),
            Value::Array(vec![]),
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![Value::Double(1.0)]),
            Value::Array(vec![bulk(b"1")]),
            Value::Array(vec![Value::Int(3)]),
            Value::Array(vec![Value::Int(2)]),
            Value::Array(vec![Value::Int(i64::MIN), Value::Int(i64::MIN)]),
            Value::Map(vec![(Value::Int(1), Value::Int(1))]),
            Value::Set(vec![Value::Int(1)]),
            Value::Array(value(&[7; 15], 1)),
            Value::Array(value(&[7; 17], 1)),
            Value::Array(value(&[], 1)),
            Value::Array(value(&[7; 16], -1)),
            Value::Array(value(&[7; 16], i64::MIN)),
            Value::Array([value(&[7; 16], 1), vec![Value::Nil]].concat()),
            huge,
            nested,
        ];
        all.extend(all.clone().into_iter().filter_map(|item| match item {
            Value::Array(items) => Some(with_tag(items)),
            _ => None,
        }));
        for reply in all {
            let text: String = format!("{reply:?}").chars().take(200).collect();
            assert!(acquired(reply.clone()).is_none(), "{text}");
            assert!(read(reply.clone()).is_err(), "{text}");
            assert!(taken(reply.clone(), 1).is_none(), "{text}");
            assert!(master(reply).is_err(), "{text}");
        }
        for number in [-1, 2, i64::MAX] {
            assert!(flag(&Value::Int(number)).is_none());
        }
        assert!(flag(&Value::Nil).is_none() && flag(&bulk(b"1")).is_none());
        assert!(taken(Value::Array(vec![Value::Int(3), Value::Int(0)]), 2).is_none());
        for port in ["", "x", "-1", "65536"] {
            let reply = Value::Array(vec![bulk(b"h"), bulk(port.as_bytes())]);
            assert_eq!(master(reply), Err(NoAnswer), "{port}");
        }
    }
}
