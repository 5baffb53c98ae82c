// A receiver in Go, written from AetherFlow's public documentation alone.
//
// Reads a JSON array of {"secret", "headers", "body_base64"} from stdin, prints for each one line,
// `ok` or `refused: <why>`, and exits with 1 if any was refused.
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"unicode/utf8"
)

type request struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Body    []byte            `json:"body_base64"` // encoding/json reads bytes from base64
}

var keys = []string{"event", "id", "timestamp", "data"}

func verifySignature(payload []byte, signature string, secret string) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(payload)
	return hmac.Equal([]byte(signature), []byte(hex.EncodeToString(mac.Sum(nil))))
}

func check(r request) error {
	given := map[string]string{}
	for name, value := range r.Headers {
		given[strings.ToLower(name)] = value
	}
	signature, there := given["x-aetherflow-signature"]
	if !there {
		return errors.New("no X-AetherFlow-Signature")
	}
	if !verifySignature(r.Body, signature, r.Secret) {
		return errors.New("X-AetherFlow-Signature does not fit the body and the secret")
	}
	if !utf8.Valid(r.Body) || !json.Valid(r.Body) {
		return errors.New("the body is not JSON in UTF-8")
	}
	order, payload, err := outermost(r.Body)
	if err != nil || !reflect.DeepEqual(order, keys) {
		return fmt.Errorf("the body is not an object of %s, in this order", strings.Join(keys, ", "))
	}
	for header, key := range map[string]string{"X-AetherFlow-Event": "event", "webhook-id": "id"} {
		value, there := given[strings.ToLower(header)]
		var text *string // nil for null, which would otherwise read as ""
		err := json.Unmarshal(payload[key], &text)
		if !there || err != nil || text == nil || *text != value {
			return fmt.Errorf("%s is not the %s of the body", header, key)
		}
	}
	return nil
}

// outermost splits an object into its keys, in the order of the text, and its raw values.
func outermost(body []byte) ([]string, map[string]json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, nil, errors.New("not an object")
	}
	var order []string
	values := map[string]json.RawMessage{}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, nil, err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, nil, err
		}
		order = append(order, key.(string))
		values[key.(string)] = value
	}
	return order, values, nil
}

func main() {
	input, err := io.ReadAll(os.Stdin)
	var requests []request
	if err == nil {
		err = json.Unmarshal(input, &requests)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	refused := false
	for _, r := range requests {
		if err := check(r); err != nil {
			refused = true
			fmt.Println("refused:", err)
		} else {
			fmt.Println("ok")
		}
	}
	if refused {
		os.Exit(1)
	}
}
