//! Arrow columns as the plain slices framing reads (contract 2.2, Parquet to JSON).
//!
//! Narrow numbers are widened and decimals become floats, once a block; everything else is borrowed.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use serde_json::{Map, Value};
use wellspring_domain::stream::column::{Column, NamedColumn, NestedValues, Validity};

/// One column of a block, in a type framing knows.
pub struct PreparedColumn {
    name: String,
    values: PreparedValues,
}

enum PreparedValues {
    Int64(Int64Array),
    UInt64(UInt64Array),
    Float64(Float64Array),
    Bool(BooleanArray),
    Text(StringArray),
    Instant(TimestampMicrosecondArray),
    Nested(NestedArray),
    Null,
    Unsupported(String),
}

/// The columns of a batch. A cast that cannot be made is an error with the column's name.
pub fn prepare_columns(batch: &RecordBatch) -> Result<Vec<PreparedColumn>, String> {
    let schema = batch.schema();
    let prepare = |(index, field): (usize, &std::sync::Arc<arrow::datatypes::Field>)| {
        let values = prepare(batch.column(index));
        let values = values.map_err(|error| format!("column {}: {error}", field.name()))?;
        Ok(PreparedColumn {
            name: field.name().clone(),
            values,
        })
    };
    schema.fields().iter().enumerate().map(prepare).collect()
}

fn prepare(array: &ArrayRef) -> Result<PreparedValues, String> {
    let to = |kind: DataType| cast(array, &kind).map_err(|error| error.to_string());
    Ok(match array.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            PreparedValues::Int64(to(DataType::Int64)?.as_primitive::<Int64Type>().clone())
        }
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            PreparedValues::UInt64(to(DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
        }
        DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => {
            PreparedValues::Float64(to(DataType::Float64)?.as_primitive::<Float64Type>().clone())
        }
        DataType::Boolean => PreparedValues::Bool(array.as_boolean().clone()),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            PreparedValues::Text(to(DataType::Utf8)?.as_string::<i32>().clone())
        }
        DataType::Timestamp(..) => {
            let micros = to(DataType::Timestamp(TimeUnit::Microsecond, None))?;
            PreparedValues::Instant(micros.as_primitive::<TimestampMicrosecondType>().clone())
        }
        DataType::List(_) | DataType::LargeList(_) | DataType::Struct(_) => {
            PreparedValues::Nested(NestedArray(array.clone()))
        }
        DataType::Null => PreparedValues::Null,
        other => PreparedValues::Unsupported(other.to_string()),
    })
}

impl PreparedColumn {
    /// The column as framing sees it.
    pub fn named(&self) -> NamedColumn<'_> {
        NamedColumn {
            name: &self.name,
            column: self.column(),
        }
    }

    fn column(&self) -> Column<'_> {
        match &self.values {
            PreparedValues::Int64(array) => Column::Int64 {
                values: array.values(),
                validity: validity(array),
            },
            PreparedValues::UInt64(array) => Column::UInt64 {
                values: array.values(),
                validity: validity(array),
            },
            PreparedValues::Float64(array) => Column::Float64 {
                values: array.values(),
                validity: validity(array),
            },
            PreparedValues::Bool(array) => Column::Bool {
                bits: array.values().values(),
                offset: array.values().offset(),
                validity: validity(array),
            },
            PreparedValues::Text(array) => Column::Text {
                offsets: array.value_offsets(),
                bytes: array.value_data(),
                validity: validity(array),
            },
            PreparedValues::Instant(array) => Column::Instant {
                micros: array.values(),
                validity: validity(array),
            },
            PreparedValues::Nested(array) => Column::Nested(array),
            PreparedValues::Null => Column::Null,
            PreparedValues::Unsupported(name) => Column::Unsupported(name),
        }
    }
}

fn validity(array: &dyn Array) -> Validity<'_> {
    match array.nulls() {
        None => Validity::ALL,
        Some(nulls) => Validity::from_bits(nulls.validity(), nulls.offset()),
    }
}

/// Lists and structs.
struct NestedArray(ArrayRef);

impl NestedValues for NestedArray {
    fn value(&self, row: usize) -> Result<Value, String> {
        json_value(&self.0, row)
    }
}

/// One value of any supported type; used for nested columns only.
fn json_value(array: &ArrayRef, row: usize) -> Result<Value, String> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let items = |items: ArrayRef| -> Result<Value, String> {
        (0..items.len()).map(|at| json_value(&items, at)).collect()
    };
    match array.data_type() {
        DataType::List(_) => items(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => items(array.as_list::<i64>().value(row)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let member =
                |(field, column): (&std::sync::Arc<arrow::datatypes::Field>, &ArrayRef)| {
                    Ok((field.name().clone(), json_value(column, row)?))
                };
            let members: Result<Map<String, Value>, String> =
                fields.iter().zip(columns).map(member).collect();
            members.map(Value::Object)
        }
        _ => scalar_value(array, row),
    }
}

fn scalar_value(array: &ArrayRef, row: usize) -> Result<Value, String> {
    match prepare(&array.slice(row, 1))? {
        PreparedValues::Int64(array) => Ok(array.value(0).into()),
        PreparedValues::UInt64(array) => Ok(array.value(0).into()),
        PreparedValues::Float64(array) if array.value(0).is_finite() => Ok(array.value(0).into()),
        PreparedValues::Float64(_) => Err("NaN or infinity".to_owned()),
        PreparedValues::Bool(array) => Ok(array.value(0).into()),
        PreparedValues::Text(array) => Ok(array.value(0).into()),
        PreparedValues::Null => Ok(Value::Null),
        PreparedValues::Instant(_) => Err("type timestamp".to_owned()),
        PreparedValues::Unsupported(name) => Err(format!("type {name}")),
        PreparedValues::Nested(_) => Err("a list in a scalar".to_owned()),
    }
}
