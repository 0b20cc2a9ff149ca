# Values that are there once in the event.
value() { sed -E "s/.*\"$1\":\"([^\"]*)\".*/\1/" <<<"$event"; }

hash() { openssl dgst -sha256 -hex | sed 's/.* //'; }

mac() { openssl dgst -sha256 -mac HMAC -macopt "$1" -hex | sed 's/.* //'; }

# As `curl --aws-sigv4` does; older ones leave the path as it is.
call() {
  local method=$1 id=${2//=/%3D} data=${3-} host stage path time scope signed key part
  host=$(value domainName) stage=$(value stage) time=$(date -u +%Y%m%dT%H%M%SZ)
  path="/$stage/@connections/$id"
  scope="${time%T*}/$AWS_REGION/execute-api/aws4_request"
  signed=$(printf '%s\n%s\n\nhost:%s\nx-amz-date:%s\n\nhost;x-amz-date\n%s' "$method" \
    "/$stage/%40connections/${id//%/%25}" "$host" "$time" "$(printf %s "$data" | hash)" | hash)
  key="key:AWS4$AWS_SECRET_ACCESS_KEY"
  for part in ${scope//\// }; do key="hexkey:$(printf %s "$part" | mac "$key")"; done
  signed=$(printf 'AWS4-HMAC-SHA256\n%s\n%s\n%s' "$time" "$scope" "$signed" | mac "$key")
  curl -sS -o /dev/null -w '%{http_code}' -X "$method" ${data:+-d "$data"} -H "X-Amz-Date: $time" -H \
    "Authorization: AWS4-HMAC-SHA256 Credential=$AWS_ACCESS_KEY_ID/$scope, SignedHeaders=host;x-amz-date, Signature=$signed" \
    "https://$host$path"
}

handler() {
  local event=$1
  printf '{"statusCode":200,"body":"%s %s"}' "$(call POST "$(value connectionId)" hello)" "$(call GET L0SM9cOFvHcCIhw=)"
}
