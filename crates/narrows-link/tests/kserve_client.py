"""An ordinary KServe v2 client, unmodified, against the server at argv[1]."""

import sys

import numpy as np
import tritonclient.http as http

client = http.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("echo")
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
names = [tensor["name"] for tensor in client.get_model_metadata("echo")["inputs"]]
assert names == ["frame", "features"], names

# A compressed frame, as one element of BYTES.
frame = bytes(range(256)) * 200
tensor = http.InferInput("frame", [1], "BYTES")
tensor.set_data_from_numpy(np.array([frame], dtype=np.object_))
for outputs in (None, [http.InferRequestedOutput("frame", binary_data=True)]):
    result = client.infer("echo", [tensor], outputs=outputs)
    assert result.as_numpy("frame")[0] == frame

# A plain tensor, as binary data and as JSON, both ways.
values = np.random.default_rng(1).standard_normal((3, 4, 5)).astype(np.float32)
for binary_in in (True, False):
    tensor = http.InferInput("features", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary_in)
    for binary_out in (True, False):
        wanted = [http.InferRequestedOutput("logits", binary_data=binary_out)]
        result = client.infer("echo", [tensor], outputs=wanted, request_id="7")
        assert np.array_equal(result.as_numpy("logits"), values.reshape(-1)), (binary_in, binary_out)
        assert result.get_response()["id"] == "7"

try:
    client.infer("elsewhere", [tensor])
    raise SystemExit("an unknown model answered")
except http.InferenceServerException as error:
    assert "no route named" in str(error), error
print("an unmodified v2 client is content")
