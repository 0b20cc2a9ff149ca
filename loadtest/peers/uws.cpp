// The peer uWebSockets, natively: the C++ library with its topic tree, no JavaScript. `build-uws` compiles it.
// Rule: the same wire as uws.cjs and the same settings, and a message is really parsed: fields in any order, escapes, and
// what is no JSON object of strings ends the connection.

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "App.h"

namespace {

constexpr std::string_view EVERYBODY = "everybody";
constexpr unsigned int MAX_BACKPRESSURE = 64 << 20;
constexpr unsigned int MAX_MESSAGE = 1 << 20;

struct Nothing {};
using Socket = uWS::WebSocket<false, true, Nothing>;

// A string of a message: a view of it, or of a copy where something was escaped.
class Text {
public:
    std::string_view view() const { return copied ? std::string_view(copy) : plain; }
    void take(std::string_view text) {
        copied = false;
        plain = text;
    }
    std::string &begin_copy() {
        copied = true;
        copy.clear();
        return copy;
    }

private:
    bool copied = false;
    std::string_view plain;
    std::string copy;
};

class Reader {
public:
    explicit Reader(std::string_view text) : rest(text) {}

    // What stands next, after blanks.
    bool eat(char wanted) {
        skip_blanks();
        if (!rest.starts_with(wanted)) {
            return false;
        }
        rest.remove_prefix(1);
        return true;
    }

    bool at_end() {
        skip_blanks();
        return rest.empty();
    }

    bool string(Text &text) {
        if (!eat('"')) {
            return false;
        }
        size_t end = plain_length();
        if (end < rest.size() && rest[end] == '"') {
            text.take(rest.substr(0, end));
            rest.remove_prefix(end + 1);
            return true;
        }
        return escaped(text.begin_copy());
    }

private:
    void skip_blanks() { rest.remove_prefix(std::min(rest.find_first_not_of(" \t\r\n"), rest.size())); }

    // Up to what ends a string or must be looked at; control characters may not stand in one.
    size_t plain_length() const {
        size_t end = 0;
        while (end < rest.size() && rest[end] != '"' && rest[end] != '\\' && static_cast<unsigned char>(rest[end]) >= 0x20) {
            ++end;
        }
        return end;
    }

    bool escaped(std::string &text) {
        for (;;) {
            size_t end = plain_length();
            text.append(rest.substr(0, end));
            rest.remove_prefix(end);
            if (rest.starts_with('"')) {
                rest.remove_prefix(1);
                return true;
            }
            if (rest.size() < 2 || rest[0] != '\\') {
                return false;
            }
            char second = rest[1];
            rest.remove_prefix(2);
            static constexpr std::string_view NAMES = "\"\\/bfnrt", MEANT = "\"\\/\b\f\n\r\t";
            if (size_t nth = NAMES.find(second); nth != std::string_view::npos) {
                text.push_back(MEANT[nth]);
            } else if (second != 'u' || !code_point(text)) {
                return false;
            }
        }
    }

    bool code_point(std::string &text) {
        std::optional<unsigned> unit = hex();
        if (!unit) {
            return false;
        }
        unsigned point = *unit;
        if (point >= 0xD800 && point < 0xDC00 && rest.starts_with("\\u")) {
            rest.remove_prefix(2);
            std::optional<unsigned> low = hex();
            if (!low || *low < 0xDC00 || *low > 0xDFFF) {
                return false;
            }
            point = 0x10000 + ((point - 0xD800) << 10) + (*low - 0xDC00);
        } else if (point >= 0xD800 && point < 0xE000) {
            return false;
        }
        append_utf8(text, point);
        return true;
    }

    std::optional<unsigned> hex() {
        unsigned value = 0;
        if (rest.size() < 4) {
            return {};
        }
        for (char digit : rest.substr(0, 4)) {
            int nibble = digit >= '0' && digit <= '9'   ? digit - '0'
                         : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                         : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                        : -1;
            if (nibble < 0) {
                return {};
            }
            value = value * 16 + static_cast<unsigned>(nibble);
        }
        rest.remove_prefix(4);
        return value;
    }

    static void append_utf8(std::string &text, unsigned point) {
        auto push = [&](unsigned byte) { text.push_back(static_cast<char>(byte)); };
        if (point < 0x80) {
            push(point);
        } else if (point < 0x800) {
            push(0xC0 | point >> 6);
            push(0x80 | (point & 0x3F));
        } else if (point < 0x10000) {
            push(0xE0 | point >> 12);
            push(0x80 | (point >> 6 & 0x3F));
            push(0x80 | (point & 0x3F));
        } else {
            push(0xF0 | point >> 18);
            push(0x80 | (point >> 12 & 0x3F));
            push(0x80 | (point >> 6 & 0x3F));
            push(0x80 | (point & 0x3F));
        }
    }

    std::string_view rest;
};

struct Message {
    Text action, group, data;

    bool parse(std::string_view json) {
        Reader reader(json);
        if (!reader.eat('{')) {
            return false;
        }
        if (reader.eat('}')) {
            return reader.at_end();
        }
        do {
            Text name, other;
            if (!reader.string(name) || !reader.eat(':') || !reader.string(field(name.view(), other))) {
                return false;
            }
        } while (reader.eat(','));
        return reader.eat('}') && reader.at_end();
    }

private:
    Text &field(std::string_view name, Text &other) {
        return name == "action" ? action : name == "group" ? group : name == "data" ? data : other;
    }
};

std::string with_group(std::string_view before, const Message &message) {
    return std::string(before).append(message.group.view());
}

void on_message(uWS::App &app, Socket *socket, std::string_view json) {
    Message message;
    if (!message.parse(json)) {
        socket->end(1007, "no JSON object of strings");
        return;
    }
    std::string_view action = message.action.view();
    if (action == "sendMessage") {
        app.publish(EVERYBODY, message.data.view(), uWS::OpCode::TEXT);
    } else if (action == "sendToGroup") {
        app.publish(with_group("group/", message), message.data.view(), uWS::OpCode::TEXT);
    } else if (action == "joinGroup") {
        socket->subscribe(with_group("group/", message));
        socket->send(with_group("joined ", message), uWS::OpCode::TEXT);
    }
}

} // namespace

int main() {
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::printf("version:uWebSockets-" UWS_VERSION "-C++/GCC-%d.%d\n", __GNUC__, __GNUC_MINOR__);
    uWS::App app;
    app.ws<Nothing>("/*", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = MAX_MESSAGE,
        .maxBackpressure = MAX_BACKPRESSURE,
        .open = [](Socket *socket) { socket->subscribe(EVERYBODY); },
        .message = [&app](Socket *socket, std::string_view json, uWS::OpCode) { on_message(app, socket, json); },
    });
    app.listen("127.0.0.1", 0, [](us_listen_socket_t *listener) {
        if (listener) {
            std::printf("port:%d\n", us_socket_local_port(0, reinterpret_cast<us_socket_t *>(listener)));
        }
    });
    app.run();
    // Only without a listener is there nothing to run.
    return 1;
}
