package machine

import "reflect"

// overlay puts what is written above over what is below, key by key. T is a struct of the model.
func overlay[T any](below, above T) T {
	overlayFields(reflect.ValueOf(&below).Elem(), reflect.ValueOf(&above).Elem())
	return below
}

func overlayFields(below, above reflect.Value) {
	for _, f := range schemaOf(below.Type()).Fields {
		b, a := below.Field(f.index), above.Field(f.index)
		bv, av := b.FieldByName("V"), a.FieldByName("V")
		switch {
		case !a.Addr().Interface().(decodable).set(), f.keepEmpty && av.IsZero():
			continue
		case f.merge == "join":
			bv.Set(reflect.AppendSlice(bv.Slice3(0, bv.Len(), bv.Len()), av))
		case f.merge == "keys":
			overlayFields(bv, av)
		default:
			bv.Set(av)
		}
		b.FieldByName("At").Set(a.FieldByName("At"))
		wrong := b.FieldByName("Wrong")
		wrong.SetBool(f.merge != "" && wrong.Bool() || a.FieldByName("Wrong").Bool())
	}
}
