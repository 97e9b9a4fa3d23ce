//! Views on disk: checks before the first row, order of parts, resumption, column types.

use super::*;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int64Type};
use parquet::arrow::ArrowWriter;
use serde_json::json;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use wellspring_domain::stream::framing::{EnvelopePins, FrameContext, FrameMemo, FramePlan};

const OUTPUT: &str = "some_output";

fn write_part(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn ids(values: std::ops::Range<i64>) -> Vec<(&'static str, ArrayRef)> {
    let times: Vec<String> = values
        .clone()
        .map(|id| format!("2026-01-01T00:00:{id:02}Z"))
        .collect();
    vec![
        (
            "id",
            Arc::new(Int64Array::from_iter_values(values)) as ArrayRef,
        ),
        ("ts_utc", Arc::new(StringArray::from(times)) as ArrayRef),
    ]
}

/// A view with three parts of four rows.
struct View {
    folder: tempfile::TempDir,
}

impl View {
    fn new() -> Self {
        let view = View {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(view.dir()).unwrap();
        for part in 0..3 {
            let name = format!("part-{part:06}.parquet");
            write_part(&view.dir().join(name), ids(part * 4..part * 4 + 4));
        }
        let root = view.folder.path().to_str().unwrap();
        let id = expected_stream_view_id(root, "s", OUTPUT);
        view.write(
            MANIFEST_FILE,
            &json!({"stream_view_id": id, "output_id": OUTPUT}),
        );
        view.write(
            RECEIPT_FILE,
            &json!({"status": "OK", "sorted_stats": {"row_count": 12}}),
        );
        view
    }

    fn dir(&self) -> PathBuf {
        self.folder
            .path()
            .join("stream_view/ts_utc")
            .join(format!("output_id={OUTPUT}"))
    }

    fn write(&self, name: &str, value: &serde_json::Value) {
        fs::write(self.dir().join(name), value.to_string()).unwrap();
    }

    fn views(&self) -> StreamViews {
        StreamViews::new(
            self.folder.path().to_str().unwrap(),
            "s",
            None,
            3,
            ObjectStores::folders(),
        )
    }

    fn rows(&self, after: Option<&Cursor>) -> Result<Vec<(String, u64, usize)>, SourceError> {
        let mut view = self.views().open(OUTPUT, after)?;
        let mut rows = Vec::new();
        while let Some(block) = view.reader.next_block()? {
            rows.push((block.part().name.clone(), block.first_row(), block.rows()));
        }
        Ok(rows)
    }

    fn code(&self, after: Option<&Cursor>) -> &'static str {
        self.rows(after).unwrap_err().code
    }

    fn cursor(&self, part: &str, row: u64) -> Cursor {
        Cursor {
            pack_key: "k".to_owned(),
            output_id: OUTPUT.to_owned(),
            last_file: self.dir().join(part).to_str().unwrap().to_owned(),
            last_row_index: row,
            last_ts_utc: None,
            stream_view_id: None,
            part_name: None,
        }
    }
}

#[test]
fn parts_are_read_in_path_order_and_no_block_crosses_a_part() {
    let view = View::new();
    let rows = view.rows(None).unwrap();
    let expected: Vec<_> = (0..3)
        .flat_map(|part| {
            let name = format!("part-{part:06}.parquet");
            [(name.clone(), 0, 3), (name, 3, 1)]
        })
        .collect();
    assert_eq!(rows, expected);
    assert_eq!(
        view.views().open(OUTPUT, None).unwrap().rows_total,
        Some(12)
    );
}

#[test]
fn reading_continues_behind_the_cursor_and_at_the_end_nothing_is_left() {
    let view = View::new();
    let rows = view
        .rows(Some(&view.cursor("part-000001.parquet", 1)))
        .unwrap();
    assert_eq!(rows[0], ("part-000001.parquet".to_owned(), 2, 2));
    assert_eq!(rows.len(), 3);
    let last = view.cursor("part-000002.parquet", 3);
    assert_eq!(view.rows(Some(&last)).unwrap(), []);
}

#[test]
fn every_reason_not_to_read_a_view_is_reachable() {
    let view = View::new();
    assert_eq!(
        view.code(Some(&view.cursor("part-000009.parquet", 0))),
        "CHECKPOINT_POSITION_UNKNOWN"
    );
    assert_eq!(
        view.code(Some(&view.cursor("part-000002.parquet", 4))),
        "CHECKPOINT_POSITION_UNKNOWN"
    );
    let mut other = view.cursor("part-000002.parquet", 0);
    other.stream_view_id = Some("other".to_owned());
    assert_eq!(view.code(Some(&other)), "CHECKPOINT_VIEW_MISMATCH");

    view.write(RECEIPT_FILE, &json!({"status": "BAD"}));
    assert_eq!(view.code(None), "STREAM_VIEW_RECEIPT_BAD");
    view.write(RECEIPT_FILE, &json!({"status": null}));
    view.write(MANIFEST_FILE, &json!({"stream_view_id": "other"}));
    assert_eq!(view.code(None), "STREAM_VIEW_ID_MISMATCH");
    view.write(MANIFEST_FILE, &json!({"output_id": "other"}));
    assert_eq!(view.code(None), "STREAM_VIEW_OUTPUT_MISMATCH");
    view.write(MANIFEST_FILE, &json!({}));
    assert!(view.rows(None).is_ok(), "absent members are not compared");
    fs::write(view.dir().join("part-000000.parquet"), b"no parquet").unwrap();
    assert_eq!(view.code(None), "STREAM_FAILED");
    for part in 0..3 {
        fs::remove_file(view.dir().join(format!("part-{part:06}.parquet"))).unwrap();
    }
    assert_eq!(view.code(None), "STREAM_VIEW_EMPTY");
    fs::remove_file(view.dir().join(RECEIPT_FILE)).unwrap();
    assert_eq!(view.code(None), "STREAM_VIEW_MISSING");
}

#[test]
fn a_view_that_was_moved_resumes_by_part_name() {
    let view = View::new();
    let mut cursor = view.cursor("part-000001.parquet", 3);
    cursor.last_file = "/elsewhere/part-000001.parquet".to_owned();
    cursor.part_name = Some("part-000001.parquet".to_owned());
    assert_eq!(
        view.rows(Some(&cursor)).unwrap()[0],
        ("part-000002.parquet".to_owned(), 0, 3)
    );
}

/// The payload of the single row of these columns.
fn payload(columns: Vec<(&str, ArrayRef)>) -> Result<String, String> {
    let mut columns = columns;
    columns.extend(ids(7..8));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let prepared = prepare_columns(&batch)?;
    let named: Vec<NamedColumn<'_>> = prepared.iter().map(PreparedColumn::named).collect();
    let names: Vec<&str> = named.iter().map(|column| column.name).collect();
    let pins = EnvelopePins {
        manifest_fingerprint: "a".repeat(64),
        parameter_hash: "b".repeat(64),
        seed: 1,
        scenario_id: "s".to_owned(),
        run_id: "c".repeat(32),
        platform_run_id: "platform_20260101T000000Z".to_owned(),
        scenario_run_id: "d".repeat(32),
    };
    let context = FrameContext {
        output_id: OUTPUT.to_owned(),
        primary_key: vec!["id".to_owned()],
        pins,
        producer: "p".to_owned(),
        trace_id: "t".to_owned(),
        span_id: None,
    };
    let plan = FramePlan::new(&context, &names).map_err(|error| error.to_string())?;
    let mut memo = FrameMemo::default();
    let mut framer = plan
        .bind(&named, &mut memo)
        .map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    framer
        .frame(0, &mut out)
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8(out).unwrap();
    let (_, payload) = text.split_once("\"payload\":").unwrap();
    Ok(payload.split_once(",\"trace_id\"").unwrap().0.to_owned())
}

#[test]
fn every_parquet_type_json_can_carry_is_carried() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]);
    let inner: ArrayRef = Arc::new(StringArray::from(vec!["é"]));
    let structure = StructArray::from(vec![(
        Arc::new(Field::new("name", arrow::datatypes::DataType::Utf8, true)),
        inner,
    )]);
    let decimal = Decimal128Array::from(vec![2599])
        .with_precision_and_scale(10, 2)
        .unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("small", Arc::new(Int32Array::from(vec![-5]))),
        ("big", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("money", Arc::new(decimal)),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true)]))),
        ("gone", Arc::new(StringArray::from(vec![None::<&str>]))),
        ("list", Arc::new(list)),
        ("struct", Arc::new(structure)),
    ];
    let expected = r#"{"big":18446744073709551615,"flag":true,"gone":null,"id":7,"list":[1,null],"money":25.99,"small":-5,"struct":{"name":"\u00e9"},"ts_utc":"2026-01-01T00:00:07Z"}"#;
    assert_eq!(payload(columns).unwrap(), expected);
}

#[test]
fn timestamps_and_binary_are_refused_by_column() {
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1]));
    let error = payload(vec![("when", time)]).unwrap_err();
    assert!(
        error.contains("when") && error.contains("timestamp"),
        "{error}"
    );
    let binary: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"x"]));
    let error = payload(vec![("blob", binary)]).unwrap_err();
    assert!(
        error.contains("blob") && error.contains("Binary"),
        "{error}"
    );
}
