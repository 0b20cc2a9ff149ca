# A handler that does what the message asks for, and answers what it was told of the run.
handler() {
  local more=
  case $1 in
    *'\"do\": \"fail\"'*) return 1 ;;
    *'\"do\": \"exit\"'*) kill $$ ;;
    *'\"do\": \"sleep\"'*) sleep 0.5 ;;
    *'\"do\": \"hang\"'*) sleep 60 ;;
    *'\"do\": \"most\"'*) more=$(printf %6291000s) ;;
    *'\"do\": \"more\"'*) more=$(printf %6292000s) ;;
  esac
  local told="process: $$, request: ${header[lambda-runtime-aws-request-id]}, deadline: ${header[lambda-runtime-deadline-ms]}"
  told+=", trace: ${header[lambda-runtime-trace-id]}, arn: ${header[lambda-runtime-invoked-function-arn]}, event: ${#1}"
  printf '{"statusCode":200,"body":"%s","headers":{"more":"%s"}}' "$told" "$more"
}
