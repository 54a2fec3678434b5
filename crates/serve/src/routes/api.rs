//! The description of the API (OpenAPI 3.1): routes and answers from the code, options from the engine.

use crate::engine::{Control, Controls, Kind};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Description;

#[derive(OpenApi)]
#[openapi(info(
    title = "diffbir",
    description = "Restores photographs that are small, blurred, noisy or old.\n\nErrors are problem details (RFC 9457). \
                   Where the server has a token, requests carry `Authorization: Bearer TOKEN`."
))]
struct Frame;

/// What does not follow from routes.
pub fn frame() -> Description {
    Frame::openapi()
}

/// The description with the options in it.
pub fn whole(description: Description, controls: &Controls) -> Value {
    let mut whole = serde_json::to_value(description).unwrap_or_default();
    for form in ["Form", "JsonForm"] {
        let options =
            controls.options.iter().map(|control| (control.name.clone(), schema(control, form == "Form")));
        if let Some(Value::Object(fields)) =
            whole.pointer_mut(&format!("/components/schemas/{form}/properties"))
        {
            fields.extend(options);
        }
    }
    let answers = whole["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    let answers = answers.filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    let answers = answers.filter_map(|method| method.get_mut("responses")?.as_object_mut()).flatten();
    answers.for_each(|(status, answer)| complete(status, answer));
    whole
}

/// What every answer has: a description, and problems the type of problems.
fn complete(status: &str, answer: &mut Value) {
    let code = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
    let title = code.and_then(|code| code.canonical_reason()).unwrap_or(status);
    if answer["description"].as_str().is_none_or(str::is_empty) {
        answer["description"] = json!(format!("{title}."));
    }
    let Some(content) = answer.get_mut("content").and_then(Value::as_object_mut) else { return };
    let is_problem = |body: &Value| body["schema"]["$ref"] == "#/components/schemas/Problem";
    if content.get("application/json").is_some_and(is_problem)
        && let Some(body) = content.remove("application/json")
    {
        content.insert("application/problem+json".into(), body);
    }
}

/// An option of a form, or of JSON, which holds no files.
fn schema(control: &Control, in_form: bool) -> Value {
    let kind = match control.kind {
        Kind::Switch => "boolean",
        Kind::Number => "number",
        Kind::Integer => "integer",
        Kind::Choice | Kind::Text | Kind::Picture => "string",
    };
    let mut schema = json!({ "type": kind, "description": control.help });
    match control.kind {
        Kind::Picture if in_form => schema["format"] = json!("binary"),
        Kind::Picture => schema["description"] = json!(format!("{} As `image`.", control.help)),
        _ => {}
    }
    if !control.choices.is_empty() {
        let values: Vec<&str> = control.choices.iter().map(|choice| choice.value.as_str()).collect();
        schema["enum"] = json!(values);
    }
    if let Some(default) = &control.default {
        // As JSON where it is a number.
        schema["default"] = match control.kind {
            Kind::Number | Kind::Integer => default.parse().unwrap_or_else(|_| json!(default)),
            _ => json!(default),
        };
    }
    schema
}
